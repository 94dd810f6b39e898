"""Labelled transitions for learning in context, of families whose optimal actions are known."""

from __future__ import annotations

from typing import Protocol, TypeVar

import torch
from gymnasium import spaces
from torch import Tensor

from envs.torch_families.torch_env import Dynamics
from metarl.records import LabelledTransitions, Record

KEPT = 5.0  # number of steps, on average, for which a walk keeps its action

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
    rows = tasks.repeat_interleave(num_steps)
    state = dynamics.uniform_state(rows, generator)
    action = _random_actions(dynamics, len(rows), generator)
    next_state = dynamics.transition(rows, state, action, generator)
    return _labelled(dynamics, tasks, state, action, next_state, generator)


def labelled_walks(
    dynamics: SolvedDynamics[T], tasks: T, num_steps: int, generator: torch.Generator
) -> LabelledTransitions:
    """The same, but that a task's transitions are successive steps of a walk from a uniform state.

    A random action is kept for five steps on average, so the walk gets somewhere.
    """
    state, action = dynamics.uniform_state(tasks, generator), _random_actions(dynamics, len(tasks), generator)
    steps: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(num_steps):
        turns = torch.rand(len(tasks), generator=generator, device=generator.device) < 1 / KEPT
        action = torch.where(turns, _random_actions(dynamics, len(tasks), generator), action)
        next_state = dynamics.transition(tasks, state, action, generator)
        steps.append((state, action, next_state))
        state = next_state
    states, actions, next_states = (torch.stack(values, 1).flatten(0, 1) for values in zip(*steps, strict=True))
    return _labelled(dynamics, tasks, states, actions, next_states, generator)


def _random_actions(dynamics: SolvedDynamics[T], num_rows: int, generator: torch.Generator) -> Tensor:
    assert isinstance(dynamics.action_space, spaces.Discrete)
    return torch.randint(int(dynamics.action_space.n), (num_rows,), generator=generator, device=generator.device)


def _labelled(
    dynamics: SolvedDynamics[T],
    tasks: T,
    state: Tensor,
    action: Tensor,
    next_state: Tensor,
    generator: torch.Generator,
) -> LabelledTransitions:
    """Transitions of N tasks, [N K, ...] by task, with what they pay and one query more in uniform states."""
    num_tasks, num_steps = len(tasks), len(action) // len(tasks)
    rows = tasks.repeat_interleave(num_steps)
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
