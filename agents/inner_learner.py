"""RL3's extra inputs: action values and visit counts from a tabular learner inside the trial.

Bhatia, Nashed, Zilberstein. RL3: boosting meta reinforcement learning via RL inside RL2 (2023).

In each task, an inner learner counts transitions and adds up rewards. Value iteration on the model that these estimate
gives the values of the actions in the current state; the agent reads them, with how often each action was taken there,
beside its observation. A memory need not learn to keep such sums, and they stay right for trials of any length.

Deviations: 1. values are of a discounted return without horizon, times 1 - gamma: averages of rewards. 2. each step
adds a few sweeps to the values of the step before, in place of new value iteration until convergence. 3. an action that
was never taken has the value zero, and no state's value is its. 4. a count n is read as 1 / (1 + n).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.checks import in_range, rounds
from metarl.errors import UserError
from metarl.records import Record, Step, Trajectory


@dataclass(frozen=True)
class NoInnerLearner:
    """The observation alone."""


@dataclass(frozen=True)
class InnerLearnerConfig:
    """Action values and visit counts from a tabular learner, as in RL3; observations must be one-hot."""

    gamma: float = 0.9  # discount factor of the inner learner's values
    num_sweeps: int = 3  # number of sweeps of value iteration per step

    def __post_init__(self) -> None:
        in_range(self, 0, 1, "gamma", open_ends=True)
        rounds(self, "num_sweeps")

    def make(self, num_states: int, action_space: spaces.Space, device: torch.device) -> InnerLearner:
        """The learner for these sizes.

        Raises:
            ValueError: when actions are not discrete.
        """
        if not isinstance(action_space, spaces.Discrete):
            raise ValueError("inner is an inner learner, which counts actions; must be none where they are continuous")
        return InnerLearner(self, num_states, int(action_space.n), device)


INNER_LEARNERS = {"none": NoInnerLearner(), "values": InnerLearnerConfig()}  # by the names that the command line takes


@dataclass(frozen=True)
class InnerState(Record):
    """What the inner learners of B rows have seen in their tasks."""

    obs: Tensor  # [B, S], the state now, one-hot; zero before the first
    count: Tensor  # [B, S, A], how often each action was taken in each state
    reward: Tensor  # [B, S, A], sums of the rewards
    led_to: Tensor  # [B, S, A, S], how often that led to each state
    value: Tensor  # [B, S, A], of each action in each state


class InnerLearner:
    """Value iteration on the transitions of a trial; it has no parameters."""

    def __init__(self, config: InnerLearnerConfig, num_states: int, num_actions: int, device: torch.device) -> None:
        self.config, self.device = config, device
        self.num_states, self.num_actions = num_states, num_actions

    @property
    def num_features(self) -> int:
        """The number of its outputs."""
        return 2 * self.num_actions

    def prior(self, num_rows: int) -> InnerState:
        """The state before any transition."""
        table = torch.zeros(num_rows, self.num_states, self.num_actions, device=self.device)
        led_to = torch.zeros(*table.shape, self.num_states, device=self.device)
        return InnerState(led_to[:, :, 0, 0], table, table, led_to, table)

    def observe(self, state: InnerState, action: Tensor, step: Step) -> InnerState:
        """The state after a one-hot action [B, A] and what it led to; zeros for the action: a trial's first step."""
        taken = state.obs.unsqueeze(2) * action.unsqueeze(1)  # [B, S, A]
        goes_on = (~step.terminated).to(taken.dtype)[:, None] * step.next_obs  # [B, S]
        count = state.count + taken
        reward = state.reward + taken * step.reward[:, None, None]
        led_to = state.led_to + taken.unsqueeze(3) * goes_on[:, None, None]
        return replace(self._improved(InnerState(state.obs, count, reward, led_to, state.value)), obs=step.obs)

    def features(self, state: InnerState) -> Tensor:
        """Values of the actions in the state now, and one over one plus their counts: [B, 2 A]."""
        value, count = ((state.obs.unsqueeze(1) @ table).squeeze(1) for table in (state.value, state.count))
        return torch.cat([(1 - self.config.gamma) * value, 1 / (1 + count)], -1)

    def unrolled(self, trajectory: Trajectory, actions: Tensor) -> Tensor:
        """The features before each step of whole trials with one-hot actions [T, B, A]: [T, B, 2 A].

        Raises:
            UserError: when an observation is not one-hot.
        """
        obs = trajectory.obs[trajectory.valid]
        if not bool(((obs == 0) | (obs == 1)).all() & (obs.sum(-1) == 1).all()):
            raise UserError("agent.inner is values; must be none, as observations are not one-hot")
        state, features = replace(self.prior(trajectory.obs.shape[1]), obs=trajectory.obs[0]), []
        later = torch.cat([trajectory.obs[1:], trajectory.next_obs[-1:]])
        for t, action in enumerate(actions):
            features.append(self.features(state))
            ends = trajectory.terminated[t], trajectory.truncated[t]
            state = self.observe(state, action, Step(later[t], trajectory.next_obs[t], trajectory.reward[t], *ends))
        return torch.stack(features)

    def _improved(self, state: InnerState) -> InnerState:
        """The state with its values after some sweeps of value iteration on the estimated model."""
        tried, times = state.count > 0, state.count.clamp(min=1)
        mean, chance = state.reward / times, (state.led_to / times.unsqueeze(3)).flatten(1, 2)
        value = state.value
        for _ in range(self.config.num_sweeps):
            best = value.masked_fill(~tried, -torch.inf).amax(2)  # [B, S]
            best = torch.where(tried.any(2), best, 0.0)
            later = (chance @ best.unsqueeze(2)).view_as(value)
            value = torch.where(tried, mean + self.config.gamma * later, 0.0)
        return replace(state, value=value)
