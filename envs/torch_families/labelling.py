"""Labelled transitions for learning in context, of families whose optimal actions are known."""

from __future__ import annotations

from typing import Protocol, TypeVar

import torch
from gymnasium import spaces
from torch import Tensor

from envs.torch_families.torch_env import Dynamics
from metarl.records import LabelledTransitions, Record

T = TypeVar("T", bound=Record)
T_contra = TypeVar("T_contra", bound=Record, contravariant=True)


class SolvedDynamics(Dynamics[T_contra], Protocol[T_contra]):
    """Functions of a family with discrete actions, one of which is known to be best in each state."""

    def uniform_state(self, tasks: T_contra, generator: torch.Generator) -> Tensor:
        """States drawn uniformly among those that can be reached: [B, ...]."""
        ...

    def optimal_policy(self, tasks: T_contra, state: Tensor) -> Tensor:
        """The probability of each action, spread over the optimal ones: [B, A]."""
        ...


def labelled_transitions(
    dynamics: SolvedDynamics[T], tasks: T, num_steps: int, generator: torch.Generator
) -> LabelledTransitions:
    """Independent transitions [N, K, ...] from uniform states and actions, and K + 1 queries with optimal actions."""
    assert isinstance(dynamics.action_space, spaces.Discrete)
    num_tasks, device = len(tasks), generator.device
    rows = tasks.repeat_interleave(num_steps)
    state = dynamics.uniform_state(rows, generator)
    action = torch.randint(int(dynamics.action_space.n), (num_tasks * num_steps,), generator=generator, device=device)
    next_state = dynamics.transition(rows, state, action, generator)
    reward = dynamics.reward(rows, state, action, next_state, generator)
    asked = tasks.repeat_interleave(num_steps + 1)
    query = dynamics.uniform_state(asked, generator)
    transitions = {
        "obs": dynamics.observation(rows, state),
        "action": action,
        "reward": reward,
        "next_obs": dynamics.observation(rows, next_state),
        "query": dynamics.observation(asked, query),
        "optimal": dynamics.optimal_policy(asked, query),
    }
    return LabelledTransitions(**{name: value.unflatten(0, (num_tasks, -1)) for name, value in transitions.items()})
