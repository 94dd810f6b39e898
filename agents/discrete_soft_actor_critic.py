"""Soft actor-critic with discrete actions: critics with one output per action, expectations in place of samples.

Christodoulou. Soft actor-critic for discrete action settings (2019).

The losses take one-hot actions [K, C], the environment int64 [K].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from gymnasium import spaces
from torch import Tensor, nn

from agents.soft_actor_critic import NUM_CRITICS, SoftActorCritic
from metarl.nets.distributions import Categorical
from metarl.nets.mlp import Activation, mlp

TARGET_ENTROPY = 0.98  # target of a learned temperature, as a fraction of the uniform policy's; as published


class DiscreteActor(nn.Module):
    """A policy over C actions; gain: of its last layer, when fresh."""

    def __init__(
        self,
        num_features: int,
        hidden_sizes: Sequence[int],
        action_space: spaces.Discrete,
        *,
        activation: Activation,
        gain: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.num_actions = int(action_space.n)
        sizes = (num_features, *hidden_sizes, self.num_actions)
        self.net = mlp(sizes, activation=activation, output_gain=gain, generator=generator)

    def forward(self, features: Tensor) -> Categorical:
        return Categorical(self.net(features))

    def to_env(self, action: Tensor) -> Tensor:
        """The same actions: they have no units."""
        return action

    def from_env(self, action: Tensor) -> Tensor:
        """Actions [...] as one-hot float32 [..., C]."""
        return nn.functional.one_hot(action, self.num_actions).to(torch.float32)


class DiscreteSoftActorCritic(SoftActorCritic):
    """The nets and losses for discrete actions.

    temperature: None: learned; the target is `TARGET_ENTROPY` times the uniform policy's entropy. regularisation: L2
    penalty on the logits.
    """

    actor_type = DiscreteActor

    def critic_ends(self, num_features: int) -> tuple[int, int]:
        return num_features, self.actor.num_actions

    @property
    def target_entropy(self) -> float:
        return TARGET_ENTROPY * math.log(self.actor.num_actions)

    def all_values(self, critics: nn.Module, features: Tensor) -> Tensor:
        """Each critic's values [2, K, C] of features [K, F] and every action."""
        return critics(features.expand(NUM_CRITICS, *features.shape))

    def values(self, critics: nn.Module, features: Tensor, action: Tensor) -> Tensor:
        """Each critic's values [2, K] of features [K, F] and one-hot actions [K, C]."""
        return (self.all_values(critics, features) * action).sum(-1)

    @torch.no_grad()
    def targets(
        self,
        reward: Tensor,
        terminated: Tensor,
        next_features: Tensor,
        generator: torch.Generator,
        *,
        next_critic_features: Tensor | None = None,
    ) -> Tensor:
        log_prob = self.actor(next_features).logits.log_softmax(-1)
        seen = next_features if next_critic_features is None else next_critic_features
        value = self.all_values(self.target_critics, seen).amin(0)
        soft_value = (log_prob.exp() * (value - self.log_temperature.exp() * log_prob)).sum(-1)
        return reward + self.gamma * torch.where(terminated, 0.0, soft_value)

    def actor_loss(
        self, features: Tensor, generator: torch.Generator, *, critic_features: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The policy's loss, and its mean negative entropy without a gradient."""
        logits = self.actor(features).logits
        log_prob = logits.log_softmax(-1)
        with torch.no_grad():
            value = self.all_values(self.critics, features if critic_features is None else critic_features).amin(0)
        gap = self.log_temperature.detach().exp() * log_prob - value
        loss = (log_prob.exp() * gap).sum(-1).mean() + self.regularisation * logits.square().mean()
        return loss, (log_prob.exp() * log_prob).sum(-1).mean().detach()
