"""Replay: a ring buffer of past transitions for each of a fixed set of tasks, in one tensor per field.

Two views share the memory: reinforcement learning samples from the whole ring of a task; a context is sampled from the
task's recent window only, which restarts each time new data are collected in the task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metarl.nets.moments import Moments
from metarl.records import Record, Trajectory, by_task


@dataclass(frozen=True)
class Transition(Record):
    """The stored fields of a step."""

    obs: Tensor  # [..., O]
    action: Tensor  # [..., A], in environment units; [...] int64 if discrete
    reward: Tensor  # [...], the task's reward
    shaped_reward: Tensor  # [...], the critic's reward: the task's, or a denser one known in meta-training
    next_obs: Tensor  # [..., O], before any reset
    terminated: Tensor  # [...] bool

    @classmethod
    def of(cls, trajectory: Trajectory[Any], shaped_reward: Tensor, num_tasks: int) -> Transition:
        """All steps of a trajectory, valid or not, by task: [N, K, ...]; shaped_reward [T, B]."""
        action, reward = trajectory.decision.action, trajectory.reward
        fields = (trajectory.obs, action, reward, shaped_reward, trajectory.next_obs, trajectory.terminated)
        return cls(*(by_task(field, num_tasks) for field in fields))

    @classmethod
    def blank(cls, obs_size: int, action_size: int | None, device: torch.device | str) -> Transition:
        """One transition of zeros; action_size: None for discrete actions."""
        zero = torch.zeros((), device=device)
        obs = torch.zeros(obs_size, device=device)
        discrete = torch.zeros((), dtype=torch.int64, device=device)
        action = discrete if action_size is None else torch.zeros(action_size, device=device)
        return cls(obs, action, zero, zero, obs, torch.zeros((), dtype=torch.bool, device=device))


class Replay:
    """Ring buffers of `capacity` transitions for `num_tasks` tasks, on the device of the sampling generator.

    action_size: the number of action dimensions; None for discrete actions.

    Item numbers never wrap: item n of a task is stored at n modulo capacity, so a window of numbers stays meaningful
    after the ring has overwritten part of it.

    Raises:
        ValueError: when a number is below one, or the rings need more than `max_gigabytes`; raised before allocation.
    """

    def __init__(
        self,
        num_tasks: int,
        capacity: int,
        obs_size: int,
        action_size: int | None,
        *,
        max_gigabytes: float,
        device: torch.device | str = "cpu",
    ) -> None:
        for name, value in (("num_tasks", num_tasks), ("capacity", capacity)):
            if value < 1:
                raise ValueError(f"{name} is {value}; must be at least 1")
        blank = Transition.blank(obs_size, action_size, device)
        size = sum(leaf.numel() * leaf.element_size() for leaf in pytree.tree_leaves(blank))
        gigabytes = num_tasks * capacity * size / 1e9
        if gigabytes > max_gigabytes:
            raise ValueError(
                f"replay of {num_tasks} tasks x {capacity} transitions x {size} bytes needs {gigabytes:.3g} GB; "
                f"max_gigabytes is {max_gigabytes:g}; lower the capacity or raise max_gigabytes"
            )
        self.num_tasks, self.capacity, self.device = num_tasks, capacity, torch.device(device)
        self._rings = blank.map(lambda value: value.new_zeros(num_tasks, capacity, *value.shape))  # [N, capacity, ...]
        zeros = torch.zeros(num_tasks, dtype=torch.int64, device=device)
        self._written, self._recent_start, self._recent_end = zeros, zeros, zeros  # item numbers

    @property
    def num_items(self) -> Tensor:
        """The number of transitions of each task that can be sampled: [N]."""
        return self._written.clamp(max=self.capacity)

    @property
    def num_recent(self) -> Tensor:
        """The number of recent transitions of each task that can be sampled: [N]."""
        oldest = torch.maximum(self._recent_start, self._written - self.capacity)
        return (self._recent_end - oldest).clamp(min=0)

    def forget_recent(self, tasks: Tensor) -> None:
        """Start a new recent window in tasks [M]; the old window's transitions stay in the rings."""
        for name in ("_recent_start", "_recent_end"):
            marks = getattr(self, name).clone()
            marks[tasks] = self._written[tasks]
            setattr(self, name, marks)

    def add(self, tasks: Tensor, items: Transition, valid: Tensor, *, recent: bool) -> None:
        """Store items [M, K, ...] of distinct tasks [M] where `valid` [M, K] is true.

        recent: whether the items enter the recent windows. The last `capacity` of a task's items are kept.

        Raises:
            ValueError: when the recent window would have a gap because items outside it were added in between.
        """
        start, count = self._written[tasks], valid.sum(1)  # [M] each
        if recent:
            if bool((self._recent_end[tasks] != start).any()):
                raise ValueError("recent items of a task must be contiguous; call forget_recent first")
            self._recent_end = self._recent_end.index_put((tasks,), start + count)
        order = valid.long().cumsum(1) - 1  # [M, K]
        kept = valid & (order >= count[:, None] - self.capacity)  # so no place is written twice
        row, item = kept.nonzero(as_tuple=True)
        place = (start[row] + order[row, item]) % self.capacity

        def write(ring: Tensor, values: Tensor) -> None:
            ring[tasks[row], place] = values[row, item]

        pytree.tree_map(write, self._rings, items)
        self._written = self._written.index_put((tasks,), start + count)

    def sample(self, tasks: Tensor, num_items: int, generator: torch.Generator, *, recent: bool = False) -> Transition:
        """Uniform samples, with replacement, from each of tasks [M]: [M, num_items, ...].

        recent: from the recent windows only.

        Raises:
            ValueError: when a task has no transitions to sample.
        """
        end = (self._recent_end if recent else self._written)[tasks]
        count = (self.num_recent if recent else self.num_items)[tasks]
        if bool((count < 1).any()):
            empty = int(tasks[count < 1][0])
            raise ValueError(f"task {empty} has no {'recent ' if recent else ''}transition in replay to sample")
        shape = (len(tasks), num_items)
        uniform = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)
        offset = (uniform * count[:, None]).long().clamp(max=(count - 1)[:, None])
        place = (end[:, None] - 1 - offset) % self.capacity
        return self._rings[tasks[:, None], place]

    def obs_moments(self) -> Moments:
        """Moments of [O], of the observations that can be drawn."""
        moments = Moments.empty(self._rings.obs.shape[-1], device=self.device)
        for obs, count in zip(self._rings.obs, self.num_items.tolist(), strict=True):  # task by task, to save memory
            moments = moments.merge(Moments.of(obs[:count]))
        return moments

    def state_dict(self) -> dict[str, Any]:
        """Only the stored items, as a list of tensors [items, ...], because the rings are mostly empty."""
        return {
            "packed": _packed(self._rings[self._places()]),
            "marks": torch.stack([self._written, self._recent_start, self._recent_end]),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hold what was saved.

        Raises:
            KeyError: for what the state lacks.
            ValueError: when it does not fit the rings.
        """
        written, start, end = state["marks"].to(self.device).unbind()
        if not bool(((start >= 0) & (start <= end) & (end <= written)).all()):
            raise ValueError("replay.marks must be in order: 0, start and end of the recent window, all written")
        items = Transition(*state["rings"]) if "rings" in state else _unpacked(state["packed"])
        count = int(written.clamp(max=self.capacity).sum())
        for name, ring in vars(self._rings).items():
            values, shape = getattr(items, name), (count, *ring.shape[2:])
            if not isinstance(values, Tensor) or values.shape != shape or values.dtype != ring.dtype:
                raise ValueError(f"replay.{name} must be a tensor of {ring.dtype} with shape {list(shape)}")
        self._written, self._recent_start, self._recent_end = written, start, end
        places = self._places()
        for name, ring in vars(self._rings).items():
            ring.zero_()
            ring[places] = getattr(items, name).to(self.device)

    def _places(self) -> Tensor:
        """Whether each place of the rings holds an item: [N, capacity] bool."""
        return torch.arange(self.capacity, device=self.device) < self.num_items[:, None]


def _packed(items: Transition) -> list[Tensor | None]:
    """Transitions [K, ...] in about half the memory, to be had back bit for bit by `_unpacked`.

    A next observation is most often the observation of the item that follows, and the shaped reward is the reward.
    """
    follows = torch.zeros(len(items), dtype=torch.bool, device=items.obs.device)
    follows[:-1] = _same_bits(items.next_obs[:-1], items.obs[1:]).all(-1)
    is_plain = bool(_same_bits(items.shaped_reward, items.reward).all())
    shaped_reward = None if is_plain else items.shaped_reward
    fields = [items.obs, items.action, items.reward, shaped_reward, items.terminated]
    return [*fields, follows, items.next_obs[~follows]]


def _unpacked(packed: Sequence[Any]) -> Transition:
    """The inverse of `_packed`.

    Raises:
        ValueError: when these are not the tensors of `_packed`.
    """
    if len(packed) != 7 or not all(isinstance(value, Tensor) for value in (*packed[:3], *packed[4:])):
        raise ValueError("replay.packed must be a list of 7 tensors")
    obs, action, reward, shaped_reward, terminated, follows, others = packed
    if follows.shape != obs.shape[:1] or others.shape != (int((~follows).sum()), *obs.shape[1:]):
        raise ValueError("replay.packed has other numbers of observations and of next observations")
    next_obs = obs.roll(-1, 0)
    next_obs[~follows] = others
    return Transition(obs, action, reward, reward if shaped_reward is None else shaped_reward, next_obs, terminated)


def _same_bits(left: Tensor, right: Tensor) -> Tensor:
    return left.view(torch.int32) == right.view(torch.int32)
