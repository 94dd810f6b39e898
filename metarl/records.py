"""Frozen records of tensors: the only data structures passed between the parts of MetaRL.

A record is a frozen dataclass whose fields are tensors, other records, dicts of tensors or None. Every subclass is
registered as a pytree, so `torch.vmap`, `torch.func.grad` and `torch.utils._pytree.tree_map` look inside it.

Axes, in trailing comments and docstrings: N tasks, E copies of each task, B = N * E environment rows (copies of one
task are contiguous), T time steps, K context items, Q queries, W ways. Trajectories are time-major [T, B, ...];
`by_task(N)` turns them into [N, K, ...] and is the only bridge between the two layouts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils import _pytree as pytree

R = TypeVar("R", bound="Record")
D = TypeVar("D", bound="Decision")


class Record:
    """Base of all records. Subclasses are declared with `@dataclass(frozen=True)`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        pytree.register_pytree_node(cls, _flatten, lambda children, context: _unflatten(cls, children, context))

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """A record of the same type with `function` applied to every tensor in it."""
        return pytree.tree_map(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, self)

    def __getitem__(self, index: Any) -> Self:
        """Index the leading axis of every tensor."""
        return self.map(lambda value: value[index])

    def __len__(self) -> int:
        """The size of the leading axis.

        Raises:
            TypeError: when the record holds no tensor.
        """
        for leaf in pytree.tree_leaves(self):
            if isinstance(leaf, Tensor):
                return leaf.shape[0]
        raise TypeError(f"{type(self).__name__} holds no tensor and has no length")

    def to(self, device: torch.device | str) -> Self:
        return self.map(lambda value: value.to(device))

    def detach(self) -> Self:
        return self.map(Tensor.detach)

    def repeat_interleave(self, copies: int) -> Self:
        """[N, ...] -> [N * copies, ...], the copies of one task contiguous."""
        return self if copies == 1 else self.map(lambda value: value.repeat_interleave(copies, dim=0))


class Digest:
    """A short hash over all tensors of a list of records, or of mappings, to tell such lists apart."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, record: Record | Mapping[str, Tensor]) -> None:
        for leaf in pytree.tree_leaves(record):
            if isinstance(leaf, Tensor):
                self._hash.update(leaf.cpu().numpy().tobytes())

    def __str__(self) -> str:
        return self._hash.hexdigest()[:12]


def _flatten(record: Any) -> tuple[list[Any], tuple[str, ...]]:
    """Children and their names; fields that are None have no child, because torch.vmap rejects such leaves."""
    names = tuple(field.name for field in fields(record) if getattr(record, field.name) is not None)
    return [getattr(record, name) for name in names], names


def _unflatten(cls: type, children: Iterable[Any], names: Any) -> Any:
    absent: dict[str, Any] = {field.name: None for field in fields(cls)}
    return cls(**(absent | dict(zip(names, children, strict=True))))


def _combine(join: Callable[[Sequence[Tensor]], Tensor], records: Sequence[R]) -> R:
    return pytree.tree_map(
        lambda *leaves: join(leaves) if isinstance(leaves[0], Tensor) else leaves[0], records[0], *records[1:]
    )


def stack(records: Sequence[R], dim: int = 0) -> R:
    """Stack records of the same structure along a new axis."""
    return _combine(lambda leaves: torch.stack(tuple(leaves), dim), records)


def cat(records: Sequence[R], dim: int = 0) -> R:
    """Concatenate records of the same structure along an existing axis."""
    return _combine(lambda leaves: torch.cat(tuple(leaves), dim), records)


def lengthened(record: R, length: int) -> R:
    """Each tensor [K, ...] with zeros after it, up to the length."""
    more = length - len(record)
    return record.map(lambda value: pad(value, (0,) * (2 * value.ndim - 1) + (more,)))


@dataclass(frozen=True)
class Step(Record):
    """The result of one step of a vectorised environment, with same-step autoreset.

    `next_obs` is the observation that the action led to; `obs` is the one to act on now. They differ only in the rows
    whose episode has just ended. After `reset` they are equal, the reward is zero and no episode has ended.
    """

    obs: Tensor  # [B, O] float32
    next_obs: Tensor  # [B, O] float32
    reward: Tensor  # [B] float32
    terminated: Tensor  # [B] bool: the task ended the episode
    truncated: Tensor  # [B] bool: the time limit ended the episode
    metrics: Tensor | None = None  # [B, M] float32, before any reset, NaN if not measured; None without `metric_names`
    privileged: Tensor | None = None  # [B, P] float32, what goes with `obs` for critics alone; None without

    @property
    def episode_end(self) -> Tensor:
        return self.terminated | self.truncated  # [B] bool


@dataclass(frozen=True)
class Decision(Record):
    """An agent's decision at one step; agents that need more data for learning extend it."""

    action: Tensor  # [B] int64 (discrete) or [B, A] float32


@dataclass(frozen=True)
class SampledDecision(Decision):
    """An action with its log-probability when sampled."""

    log_prob: Tensor  # [B] float32


@dataclass(frozen=True)
class ActorCriticDecision(SampledDecision):
    """A sampled action with the critic's value at that time."""

    value: Tensor  # [B] float32, in the critic's own units


@dataclass(frozen=True)
class LabelledTransitions(Record):
    """Transitions of N tasks that need no trajectory, and states whose optimal actions are known.

    The optimal actions after each prefix of the K transitions, also the empty one, are asked for in one more state.
    """

    obs: Tensor  # [N, K, O]
    action: Tensor  # [N, K] int64
    reward: Tensor  # [N, K]
    next_obs: Tensor  # [N, K, O]
    query: Tensor  # [N, K + 1, O]
    optimal: Tensor  # [N, K + 1, A], probabilities spread over the optimal actions


@dataclass(frozen=True)
class Trajectory(Record, Generic[D]):
    """Time-major experience of B rows; everything at index t belongs to the same transition.

    Rows whose trial is over are no longer simulated: `valid` is false there, and the other fields are finite but
    meaningless.
    """

    obs: Tensor  # [T, B, O], the observation acted on
    decision: D  # [T, B, ...]
    reward: Tensor  # [T, B]
    next_obs: Tensor  # [T, B, O], the observation after the action, before any reset
    terminated: Tensor  # [T, B] bool
    truncated: Tensor  # [T, B] bool
    episode_start: Tensor  # [T, B] bool
    trial_start: Tensor  # [T, B] bool
    valid: Tensor  # [T, B] bool
    metrics: Tensor | None = None  # [T, B, M]; None without `metric_names`
    privileged: Tensor | None = None  # [T, B, P], what goes with `obs` for critics alone; None without

    @property
    def episode_end(self) -> Tensor:
        return self.terminated | self.truncated  # [T, B] bool

    @property
    def num_steps(self) -> int:
        """The number of valid steps."""
        return int(self.valid.sum())

    @property
    def episode_index(self) -> Tensor:
        """Which episode of its trial each step belongs to, from zero: [T, B] int64."""
        return (self.episode_start & self.valid).long().cumsum(0) - 1

    def episode_returns(self, num_episodes: int) -> Tensor:
        """Undiscounted return of each episode of each row: [num_episodes, B]."""
        index = self.episode_index.clamp(0, num_episodes - 1)
        reward = torch.where(self.valid, self.reward, 0.0)
        return reward.new_zeros(num_episodes, reward.shape[1]).scatter_add_(0, index, reward)

    def episode_metrics(self, num_episodes: int) -> Tensor | None:
        """Each metric's mean over the steps of each episode of each row: [num_episodes, B, M], or None without any.

        Steps that did not measure it, where it is NaN, do not count; an episode without any that did has NaN.
        """
        if self.metrics is None:
            return None
        steps, rows, size = self.metrics.shape
        index = self.episode_index.clamp(0, num_episodes - 1)
        measured = self.valid[..., None] & ~self.metrics.isnan()
        zeros, index = self.metrics.new_zeros(num_episodes, rows, size), index[..., None].expand(steps, rows, size)
        total = zeros.scatter_add(0, index, torch.where(measured, self.metrics, 0.0))
        return total / zeros.scatter_add(0, index, measured.to(zeros.dtype))

    def by_task(self, num_tasks: int) -> Self:
        """[T, B, ...] -> [N, K, ...] with K = T * E: all steps of all copies of a task, copy after copy."""
        return self.map(lambda value: by_task(value, num_tasks))


def describe(tasks: Any) -> str:
    """Tasks in one line: how many, and each field with its range."""
    fields_of = vars(tasks) if isinstance(tasks, Record) else {}
    tensors = {name: value for name, value in fields_of.items() if isinstance(value, Tensor) and value.numel()}
    ranges = []
    for name, value in tensors.items():
        low, high = (f"{end.item():.4g}" for end in (value.min(), value.max()))
        ranges.append(f"{name} {low}" if low == high else f"{name} {low} to {high}")
    count = "one task" if len(tasks) == 1 else f"{len(tasks)} tasks"
    return f"{count} ({', '.join(ranges)})" if ranges else count


def task_numbers(tasks: Record, num_rows: int) -> Tensor:
    """All parameters of each row's task, [B, P] float32; the rows of a task are contiguous."""
    leaves = [leaf for leaf in pytree.tree_leaves(tasks) if isinstance(leaf, Tensor)]
    numbers = torch.cat([leaf.reshape(len(leaf), -1).float() for leaf in leaves], dim=1)  # [N, P]
    return numbers.repeat_interleave(num_rows // len(numbers), dim=0)


def by_task(values: Tensor, num_tasks: int) -> Tensor:
    """[T, B, ...] -> [N, K, ...] with K = T * E: all steps of all copies of a task, copy after copy."""
    steps, rows = values.shape[:2]
    rows_first = values.transpose(0, 1)  # [B, T, ...]
    return rows_first.reshape(num_tasks, rows // num_tasks * steps, *values.shape[2:])


@dataclass(frozen=True)
class Examples(Record):
    """Supervised data of one or many tasks."""

    x: Tensor  # [..., K, in], or images [..., K, C, H, W]
    y: Tensor  # [..., K, out], or [..., K] int64 for classes
    valid: Tensor | None = None  # [..., K] bool, false for padding; None: all are valid
    context: Tensor | None = None  # [..., S, in], other inputs whose statistics normalise x, for nets that use them
