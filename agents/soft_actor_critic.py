"""Soft actor-critic: twin critics in batched matrix products, target critics, a tanh-Gaussian policy, a temperature.

Haarnoja et al. Soft actor-critic: off-policy maximum entropy deep reinforcement learning (2018).
Haarnoja et al. Soft actor-critic algorithms and applications (2018): two critics without a value net, and a temperature
that keeps the policy's entropy near a target.

The inputs are features [K, F]: observations, possibly concatenated with other inputs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from metarl.nets.distributions import TanhGaussian
from metarl.nets.mlp import Activation, center_and_half_range, ensemble, mlp

_LOG_STD_RANGE = (-20.0, 2.0)
NUM_CRITICS = 2


class Actor(nn.Module):
    """A policy over a box, which is [-1, 1] in policy units; gain: the initial gain of its last layer."""

    def __init__(
        self,
        num_features: int,
        hidden_sizes: Sequence[int],
        action_space: spaces.Box,
        *,
        activation: Activation,
        gain: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.num_actions = action_space.shape[0]
        sizes = (num_features, *hidden_sizes, 2 * self.num_actions)
        self.net = mlp(sizes, activation=activation, output_gain=gain, generator=generator)
        center, half_range = center_and_half_range(action_space, generator.device)
        self.register_buffer("center", center, persistent=False)
        self.register_buffer("half_range", half_range, persistent=False)

    center: Tensor  # [A]
    half_range: Tensor  # [A]

    def forward(self, features: Tensor) -> TanhGaussian:
        mean, log_std = self.net(features).chunk(2, -1)
        return TanhGaussian(mean, log_std.clamp(*_LOG_STD_RANGE))

    def to_env(self, action: Tensor) -> Tensor:
        """An action in environment units, from policy units."""
        return torch.addcmul(self.center, action, self.half_range)

    def from_env(self, action: Tensor) -> Tensor:
        """An action in policy units, from environment units."""
        return (action - self.center) / self.half_range


class SoftActorCritic(nn.Module):
    """The nets and losses for actions in a box; an agent owns the optimisers.

    temperature: the fixed weight of entropy relative to reward; None: learned from `initial_temperature` on, with minus
    the number of action dimensions as the target of the policy's entropy. regularisation: L2 penalty on the policy's
    means and log standard deviations, before the tanh.

    Policy and critics read the same features; where critics have their own, these are given besides.
    """

    actor_type: Any = Actor

    def __init__(
        self,
        num_features: int,
        hidden_sizes: Sequence[int],
        action_space: spaces.Box | spaces.Discrete,
        *,
        activation: Activation,
        gamma: float,
        temperature: float | None,
        regularisation: float,
        actor_gain: float = 0.01,
        initial_temperature: float = 1.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.actor = self.actor_type(
            num_features, hidden_sizes, action_space, activation=activation, gain=actor_gain, generator=generator
        )
        num_inputs, num_outputs = self.critic_ends(num_features)
        sizes = (num_inputs, *hidden_sizes, num_outputs)
        nets = [mlp(sizes, activation=activation, output_gain=1.0, generator=generator) for _ in range(NUM_CRITICS)]
        self.critics = ensemble(nets)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.gamma, self.regularisation = gamma, regularisation
        self.learns_temperature = temperature is None
        start = math.log(initial_temperature if temperature is None else temperature)
        start = torch.tensor(start, device=generator.device)
        self.log_temperature = nn.Parameter(start, requires_grad=self.learns_temperature)

    def critic_ends(self, num_features: int) -> tuple[int, int]:
        """The numbers of a critic's inputs and outputs."""
        return num_features + self.actor.num_actions, 1

    @property
    def target_entropy(self) -> float:
        """The policy's entropy that a learned temperature aims at."""
        return -self.actor.num_actions

    def values(self, critics: nn.Module, features: Tensor, action: Tensor) -> Tensor:
        """Each critic's values [2, K] of features [K, F] and actions [K, A]."""
        inputs = torch.cat([features, action], -1)
        return critics(inputs.expand(NUM_CRITICS, *inputs.shape)).squeeze(-1)

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
        """The critics' targets [K], from rewards [K] and the next step's features.

        next_critic_features: the target critics' own; None: they read `next_features`.
        """
        action, log_prob = self.actor(next_features).sample_with_log_prob(generator)
        seen = next_features if next_critic_features is None else next_critic_features
        value = self.values(self.target_critics, seen, action).amin(0)
        soft_value = value - self.log_temperature.exp() * log_prob
        return reward + self.gamma * torch.where(terminated, 0.0, soft_value)

    def critic_loss(self, features: Tensor, action: Tensor, target: Tensor) -> Tensor:
        """The two critics' mean squared errors, added."""
        return (self.values(self.critics, features, action) - target).square().mean(1).sum()

    def actor_loss(
        self, features: Tensor, generator: torch.Generator, *, critic_features: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The policy's loss, and the mean log-probability of its samples, detached.

        critic_features: the critics' own; None: they read `features`.
        """
        distribution = self.actor(features)
        action, log_prob = distribution.sample_with_log_prob(generator)
        value = self.values(self.critics, features if critic_features is None else critic_features, action).amin(0)
        size = distribution.mean.square().mean() + distribution.log_std.square().mean()
        loss = (self.log_temperature.detach().exp() * log_prob - value).mean() + self.regularisation * size
        return loss, log_prob.detach().mean()

    def temperature_loss(self, log_prob: Tensor) -> Tensor:
        """The temperature's loss, which raises it when the entropy is below its target; log_prob: from `actor_loss`."""
        return -self.log_temperature * (log_prob + self.target_entropy)

    def polyak_update(self, tau: float) -> None:
        """Move the target critics towards the critics by the fraction `tau`."""
        polyak_update(self.target_critics, self.critics, tau)


@torch.no_grad()
def polyak_update(target: nn.Module, net: nn.Module, tau: float) -> None:
    """Move a target net's parameters towards the net's by the fraction `tau` (Polyak averaging)."""
    for slow, fast in zip(target.parameters(), net.parameters(), strict=True):
        slow.lerp_(fast, tau)
