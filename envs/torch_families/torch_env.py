"""The vectorised environment of all task families written as a few torch functions.

A family defines its initial state, transition, reward, end and observation; rows, step counters, the time limit,
same-step autoreset and inactive rows are handled here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from gymnasium import spaces
from torch import Tensor

from envs.rows import one_task_per_row, replace_tasks, where_row
from metarl.checks import at_least
from metarl.records import Record, Step

T = TypeVar("T", bound=Record)
T_contra = TypeVar("T_contra", bound=Record, contravariant=True)


class Dynamics(Protocol[T_contra]):
    """The functions that define a family; they are pure except for their use of the generator.

    `tasks` are expanded to one task per row. States are one tensor [B, ...] of any dtype.
    """

    @property
    def horizon(self) -> int: ...

    @property
    def observation_space(self) -> spaces.Box: ...

    @property
    def action_space(self) -> spaces.Box | spaces.Discrete: ...

    def initial_state(self, tasks: T_contra, generator: torch.Generator) -> Tensor:
        """The initial states: [B, ...]."""
        ...

    def transition(self, tasks: T_contra, state: Tensor, action: Tensor, generator: torch.Generator) -> Tensor:
        """The state [B, ...] that `action` leads to from `state`; Box actions arrive clipped."""
        ...

    def reward(
        self, tasks: T_contra, state: Tensor, action: Tensor, next_state: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The rewards: [B] float32."""
        ...

    def terminated(self, tasks: T_contra, next_state: Tensor) -> Tensor | None:
        """Whether the task ends the episode: [B] bool, or None if it never does."""
        ...

    def observation(self, tasks: T_contra, state: Tensor) -> Tensor:
        """The observations [B, O] float32, never the tensor `state` itself, because the caller may modify it."""
        ...


@runtime_checkable
class Measured(Protocol[T_contra]):
    """Optional functions of a family with per-step metrics besides the reward."""

    @property
    def metric_names(self) -> tuple[str, ...]: ...

    def metrics(self, tasks: T_contra, next_state: Tensor) -> Tensor:
        """The metrics [B, M] float32 after a step, in the order of `metric_names`."""
        ...


class TorchEnv(Generic[T]):
    """B rows of a family given by torch functions; implements `metarl.protocols.VectorEnv`.

    `step` never synchronises with the device, and without `active` it does no row selection.
    """

    def __init__(self, dynamics: Dynamics[T], num_rows: int, generator: torch.Generator) -> None:
        self.num_rows = num_rows
        at_least(self, 1, "num_rows")
        self.device = generator.device
        self.observation_space = dynamics.observation_space
        self.action_space = dynamics.action_space
        self._dynamics = dynamics
        self._measured = dynamics if isinstance(dynamics, Measured) else None
        if self._measured is not None:
            self.metric_names = self._measured.metric_names
        self.generator = generator
        self._horizon = dynamics.horizon
        self._tasks: T | None = None
        self._state: Tensor | None = None  # [B, ...]
        self._elapsed: Tensor | None = None  # [B] int64, steps since the row's episode began
        self._arrived: tuple[Tensor, Tensor] | None = None  # state and elapsed before any autoreset, for rendering
        self._action_shape = (num_rows, *(self.action_space.shape or ()))
        self._box: tuple[Tensor, Tensor] | None = None
        if isinstance(self.action_space, spaces.Box):
            low, high = self.action_space.low, self.action_space.high
            self._box = (torch.as_tensor(low, device=self.device), torch.as_tensor(high, device=self.device))

    def reset(self, tasks: T) -> Step:
        """Assign tasks to the rows, B / N contiguous rows each, and start the first episode in each.

        Raises:
            ValueError: when the number of tasks does not divide the number of rows.
        """
        self._tasks = one_task_per_row(tasks, self.num_rows).to(self.device)
        self._state = self._dynamics.initial_state(self._tasks, self.generator)
        self._elapsed = torch.zeros(self.num_rows, dtype=torch.int64, device=self.device)
        self._arrived = (self._state, self._elapsed)
        nothing_ended = torch.zeros(self.num_rows, dtype=torch.bool, device=self.device)
        return Step(
            obs=self._dynamics.observation(self._tasks, self._state),
            next_obs=self._dynamics.observation(self._tasks, self._state),
            reward=torch.zeros(self.num_rows, device=self.device),
            terminated=nothing_ended,
            truncated=nothing_ended.clone(),
            metrics=None if self._measured is None else self._no_metrics(),
        )

    def _no_metrics(self) -> Tensor:
        return torch.zeros(self.num_rows, len(self.metric_names), device=self.device)

    @property
    def steps_per_episode(self) -> int | None:
        """The number of steps of every episode, if no task ends one early; else None, and before `reset`."""
        tasks, state = self._tasks, self._state
        if tasks is None or state is None or self._dynamics.terminated(tasks, state) is not None:
            return None
        return self._horizon

    @property
    def carried(self) -> tuple[Tensor, ...]:
        """What a step reads and replaces, see `metarl.rl.step_graph.Carries`; raises RuntimeError before `reset`."""
        if self._state is None or self._elapsed is None:
            raise RuntimeError("carried was read before reset")
        return self._state, self._elapsed

    @carried.setter
    def carried(self, values: tuple[Tensor, ...]) -> None:
        self._state, self._elapsed = values

    def restart(self, tasks: T, rows: Tensor) -> Tensor:
        """Start an episode where `rows` [B] (bool) is true, each in its own of `tasks` [B]; the other rows continue.

        Returns the observations to act on, [B, O].

        Raises:
            RuntimeError: when called before `reset`.
        """
        if self._tasks is None or self._state is None or self._elapsed is None:
            raise RuntimeError("restart was called before reset")
        self._tasks = replace_tasks(self._tasks, tasks, rows)
        self._state = where_row(rows, self._dynamics.initial_state(self._tasks, self.generator), self._state)
        self._elapsed = self._elapsed.masked_fill(rows, 0)
        return self._dynamics.observation(self._tasks, self._state)

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        """One step of all rows, or of those where `active` [B] is true; see `VectorEnv.step`.

        Raises:
            ValueError: when `action` does not have the shape of a batch of actions.
            RuntimeError: when called before `reset`.
        """
        tasks, state, elapsed = self._tasks, self._state, self._elapsed
        if tasks is None or state is None or elapsed is None:
            raise RuntimeError("step was called before reset: the rows have no tasks yet")
        if action.shape != self._action_shape:
            raise ValueError(f"action has shape {tuple(action.shape)}; must be {self._action_shape}")
        if self._box is not None:
            action = action.clamp(*self._box)

        dynamics, generator = self._dynamics, self.generator
        next_state = dynamics.transition(tasks, state, action, generator)
        reward = dynamics.reward(tasks, state, action, next_state, generator)
        terminated = dynamics.terminated(tasks, next_state)
        elapsed = elapsed + (1 if active is None else active)
        truncated = elapsed >= self._horizon
        if terminated is None:
            terminated = torch.zeros_like(truncated)
        else:
            truncated = truncated > terminated  # an episode has one reason to end; the task's takes precedence

        if active is not None:
            next_state = where_row(active, next_state, state)
            reward = torch.where(active, reward, 0.0)
            terminated = terminated & active
            truncated = truncated & active

        episode_end = terminated | truncated
        self._arrived = (next_state, elapsed)
        self._state = where_row(episode_end, dynamics.initial_state(tasks, generator), next_state)
        self._elapsed = elapsed.masked_fill(episode_end, 0)
        return Step(
            obs=dynamics.observation(tasks, self._state),
            next_obs=dynamics.observation(tasks, next_state),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            metrics=None if self._measured is None else self._measured.metrics(tasks, next_state),
        )


def unit_box(num_dims: int, low: float = 0.0, high: float = 1.0) -> spaces.Box:
    """A float32 box with the same limits in each of its `num_dims` dimensions."""
    return spaces.Box(low, high, (num_dims,))


@lru_cache
def one_hot_rows(num_classes: int, device: torch.device) -> Tensor:
    """The one-hot vectors as rows, [K, K] float32; selecting rows is three times as fast as `one_hot(...).float()`."""
    return torch.eye(num_classes, device=device)
