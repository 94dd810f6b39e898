"""DPT: a decision-pretrained transformer, which learns in context what posterior sampling would do.

Lee et al. Supervised pretraining can learn in-context reinforcement learning (2023).

Pretraining is supervised: a transformer reads independent transitions of a task and predicts, after each, the optimal
action in another state; the tasks' optimal actions are known. What minimises this loss is the posterior distribution of
the optimal action, so sampling from it explores as posterior sampling does. Acting, the context is the trial so far.

Deviations: 1. the context grows with every step of a trial, not with every episode. 2. where several actions are
optimal, the label is uniform over them. 3. the query is read by the output head instead of being the first item, so one
pass over the context answers a query after each item. 4. transitions have no positions, as their order does not matter.
5. with bandits, the arms of the context are drawn uniformly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from metarl.adaptation.sequence import SequenceBelief, SequenceState
from metarl.adaptation.transformer import TransformerConfig
from metarl.checks import at_least, not_negative, positive, widths
from metarl.nets.mlp import PolicyHead
from metarl.optim import gradient_step, load_adam
from metarl.parallel import share_of_mean
from metarl.protocols import TaskFamily
from metarl.records import LabelledTransitions, Record, SampledDecision, Step, Trajectory
from metarl.rl.labelled_source import LabelledSource
from metarl.source import TrainConfig


@dataclass(frozen=True)
class DPTConfig:
    """Decision-pretrained transformer: it imitates optimal actions given other transitions of the task."""

    memory: TransformerConfig = field(  # transformer that reads the transitions
        default_factory=lambda: TransformerConfig(num_layers=4, positions="none")
    )
    hidden_size: int = 64  # width of the transformer
    head_sizes: tuple[int, ...] = (128,)  # hidden layers between the context with a query and the action
    context: int = 100  # number of transitions per task in pretraining
    learning_rate: float = 1e-3  # initial step size of Adam
    final_learning_rate: float = 1e-4  # step size at the last iteration, reached linearly; at most `learning_rate`
    max_grad_norm: float = 1.0  # largest norm of the gradient

    def __post_init__(self) -> None:
        widths(self, "hidden_size", "head_sizes")
        at_least(self, 1, "context")
        positive(self, "learning_rate", "max_grad_norm")
        not_negative(self, "final_learning_rate")
        self.memory.check_width(self.hidden_size)
        if self.memory.positions == "learned":
            raise ValueError("positions is 'learned'; must be another kind: trials are longer than the contexts here")

    def make_source(
        self, family: TaskFamily, train: TrainConfig, generators: Mapping[str, torch.Generator]
    ) -> LabelledSource:
        """Labelled transitions in fresh tasks."""
        return LabelledSource(self, family, train, generators, num_steps=self.context)

    def make(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        *,
        num_iterations: int,
        generator: torch.Generator,
    ) -> DPT:
        return DPT(self, observation_space, action_space, num_iterations=num_iterations, generator=generator)


@dataclass(frozen=True)
class DPTState(Record):
    """The agent's state within a trial."""

    memory: SequenceState
    obs: Tensor  # [B, O], the last observation


class DPTNetwork(nn.Module):
    """The transformer and the head that answers queries."""

    def __init__(
        self,
        config: DPTConfig,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        obs_size = observation_space.shape[0]
        sizes = (config.hidden_size + obs_size, *config.head_sizes)
        self.policy = PolicyHead(sizes, action_space, activation="relu", init_std=1.0, generator=generator)
        item_size = 2 * obs_size + self.policy.num_actions + 1
        memory: Any = config.memory.make(item_size, config.hidden_size, generator=generator)
        self.memory: SequenceBelief[Any] = SequenceBelief(nn.Identity(), memory)

    def items(self, obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor) -> Tensor:
        """Transitions as the transformer reads them: [..., item]."""
        return torch.cat([obs, self.policy.encode(action), reward.unsqueeze(-1), next_obs], -1)


class DPT:
    """The agent: `observe` adds a transition to the context, `act` samples an action, `update` is supervised."""

    block: int | None = None  # the context grows at every step
    training_blocks: int | None = None

    def __init__(
        self,
        config: DPTConfig,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        *,
        num_iterations: int,
        generator: torch.Generator,
    ) -> None:
        self.config, self.num_iterations = config, num_iterations
        self.obs_size = observation_space.shape[0]
        self.net = DPTNetwork(config, observation_space, action_space, generator)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=config.learning_rate, fused=True)
        self.num_updates = 0

    # --- acting: prior, observe and act, one step at a time ----------------------------------------------------

    def prior(self, num_tasks: int, copies: int = 1) -> DPTState:
        memory = self.net.memory.prior(num_tasks * copies)
        return DPTState(memory, memory.hidden.new_zeros(num_tasks * copies, self.obs_size))

    def observe(self, state: DPTState, action: Tensor | None, step: Step) -> DPTState:
        if action is None:
            return DPTState(state.memory, step.obs)
        item = self.net.items(state.obs, action, step.reward, step.next_obs)
        return DPTState(self.net.memory.absorb(state.memory, item), step.obs)

    def act(self, state: DPTState, obs: Tensor, generator: torch.Generator | None) -> SampledDecision:
        """A decision for obs [B, O]."""
        distribution = self.net.policy(torch.cat([state.memory.hidden, obs], -1))
        action = distribution.mode if generator is None else distribution.sample(generator)
        return SampledDecision(action, distribution.log_prob(action))

    def adapt(self, state: DPTState, trajectory: Trajectory[SampledDecision]) -> DPTState:
        """The unchanged state: the context already holds every step."""
        return state

    def state_vectors(self, state: DPTState) -> Tensor:
        """The transformer's output after the last transition [B, H]."""
        return state.memory.hidden

    def states_of(self, state: DPTState, tasks: Tensor) -> DPTState:
        return state[tasks]

    # --- learning ---------------------------------------------------------------------------------------------

    def update(self, experience: LabelledTransitions, generator: torch.Generator) -> dict[str, float]:
        """One step of Adam on the log-likelihood of optimal actions after every number of transitions.

        Raises:
            FloatingPointError: when a parameter is no longer finite; the agent is unusable then.
        """
        likelihood = self._log_likelihood(experience)  # [K + 1]
        norm = gradient_step(
            self.optimizer,
            share_of_mean(-likelihood.mean()),
            max_norm=self.config.max_grad_norm,
            learning_rate=self._learning_rate(),
        )
        self.num_updates += 1
        likelihood = likelihood.detach()
        by_context = {"empty": likelihood[0], "whole": likelihood[-1]}
        return {
            "train/log_likelihood": float(likelihood.mean()),
            **{f"train/log_likelihood_{name}_context": float(value) for name, value in by_context.items()},
            "train/grad_norm": float(norm),
        }

    def _log_likelihood(self, data: LabelledTransitions) -> Tensor:
        """The mean log-likelihood of optimal actions after each number of transitions: [K + 1]."""
        items = self.net.items(data.obs, data.action, data.reward, data.next_obs)
        prior = self.net.memory.prior(len(items))
        hidden = torch.cat([prior.hidden.unsqueeze(1), self.net.memory.read(prior, items)[0]], 1)
        logits = self.net.policy(torch.cat([hidden, data.query], -1)).logits
        return (data.optimal * logits.log_softmax(-1)).sum(-1).mean(0)

    def _learning_rate(self) -> float:
        start, end = self.config.learning_rate, self.config.final_learning_rate
        return start + (end - start) * self.num_updates / self.num_iterations

    # --- saving -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "num_updates": self.num_updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        load_adam(self.optimizer, state["optimizer"])
        self.num_updates = state["num_updates"]
