"""Delays of observations and actions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor

from envs.rows import where_row
from envs.wrappers.wrapped import Wrapped, WrappedEnv
from metarl.protocols import VectorEnv
from metarl.records import Record, Step


@dataclass(frozen=True)
class Delayed(Wrapped):
    """Delays observations and actions by a number of steps; strengths are rounded to whole numbers.

    An episode's first observation is repeated until the delay has passed; until the first action arrives, the action is
    zero, or the point of the box nearest to zero.
    """

    obs_delay: Any = 0  # delay of observations in steps: a number or a `Sampler`
    action_delay: Any = 0  # delay of actions in steps: a number or a `Sampler`

    suffix: ClassVar[str] = "delayed"
    strengths: ClassVar[tuple[str, ...]] = ("obs_delay", "action_delay")

    def make_env(self, num_rows: int, generator: torch.Generator) -> VectorEnv:
        return _DelayedEnv(self.family.make_env(num_rows, generator), self)


class _DelayedEnv(WrappedEnv):
    def reset(self, tasks: Record) -> Step:
        step = self.env.reset(tasks)
        self._neutral = _neutral_action(self.action_space, self.num_rows, self.device)
        self._seen, self._sent = (
            _Delay(self._lengths(name, tasks), start)
            for name, start in (("obs_delay", step.obs), ("action_delay", self._neutral))
        )
        return step

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        arrived = self._sent.push(action, active)
        step = self.env.step(arrived, active)
        next_obs = self._seen.push(step.next_obs, active)
        self._sent.restart(self._neutral, step.episode_end)
        self._seen.restart(step.obs, step.episode_end)
        return replace(step, obs=self._seen.latest(), next_obs=next_obs)

    def restart(self, tasks: Record, rows: Tensor) -> Tensor:
        obs = self.env.restart(tasks, rows)  # pyright: ignore[reportAttributeAccessIssue]
        for name, delay, start in (("obs_delay", self._seen, obs), ("action_delay", self._sent, self._neutral)):
            delay.set_lengths(self._lengths(name, tasks), rows)
            delay.restart(start, rows)
        return self._seen.latest()

    def _lengths(self, name: str, tasks: Record) -> Tensor:
        return self.strength(name, tasks).clamp(min=0).round().long()


class _Delay:
    """B queues of different lengths."""

    def __init__(self, lengths: Tensor, start: Tensor) -> None:
        """`lengths` [B] int64, in steps. `start` [B, ...] initially fills the queues."""
        self._lengths, self._rows = lengths, torch.arange(len(lengths), device=lengths.device)
        places = int(lengths.max()) + 1  # synchronises with the device, but only at resets
        self._queue = start[:, None].expand(len(start), places, *start.shape[1:]).clone()  # [B, places, ...]

    def push(self, values: Tensor, active: Tensor | None) -> Tensor:
        """Push values [B, ...] into the queues of active rows; returns the output of all queues."""
        pushed = torch.cat([values[:, None], self._queue[:, :-1]], dim=1)
        self._queue = pushed if active is None else where_row(active, pushed, self._queue)
        return self.latest()

    def set_lengths(self, lengths: Tensor, rows: Tensor) -> None:
        """Set new lengths [B] for `rows` [B] (bool), which must be refilled afterwards."""
        self._lengths = torch.where(rows, lengths, self._lengths)
        missing = int(self._lengths.max()) + 1 - self._queue.shape[1]
        if missing > 0:
            self._queue = torch.cat([self._queue, self._queue[:, -1:].repeat_interleave(missing, dim=1)], dim=1)

    def restart(self, values: Tensor, rows: Tensor) -> None:
        """Fill the queues of `rows` [B] (bool) with values [B, ...]."""
        self._queue = where_row(rows, values[:, None].expand_as(self._queue), self._queue)

    def latest(self) -> Tensor:
        """The last output: [B, ...]."""
        return self._queue[self._rows, self._lengths]


def _neutral_action(space: spaces.Space[Any], num_rows: int, device: torch.device) -> Tensor:
    """The action nearest to zero: [B] int64 or [B, A] float32."""
    if not isinstance(space, spaces.Box):
        return torch.zeros(num_rows, dtype=torch.int64, device=device)
    low, high = (torch.as_tensor(limit, device=device) for limit in (space.low, space.high))
    return torch.zeros(num_rows, *space.shape, device=device).clamp(low, high)
