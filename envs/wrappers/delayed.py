"""Delays of what is seen and of what is done."""

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
    """Observations are seen, and actions take effect, a number of steps late; a strength is rounded to a whole number.

    Until the first observation is old enough, it is seen over and over; until the first action arrives, the action is
    zero, or what of the box is nearest to it.
    """

    obs_delay: Any = 0  # steps: a number or a `Sampler`
    action_delay: Any = 0

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
    """B queues, each of its own length."""

    def __init__(self, lengths: Tensor, start: Tensor) -> None:
        """`lengths` [B] int64, in steps. `start` [B, ...] is in all places of the queues."""
        self._lengths, self._rows = lengths, torch.arange(len(lengths), device=lengths.device)
        places = int(lengths.max()) + 1  # the host waits, but at resets only
        self._queue = start[:, None].expand(len(start), places, *start.shape[1:]).clone()  # [B, places, ...]

    def push(self, values: Tensor, active: Tensor | None) -> Tensor:
        """Put values [B, ...] into the queues of active rows; returns what comes out of all of them."""
        pushed = torch.cat([values[:, None], self._queue[:, :-1]], dim=1)
        self._queue = pushed if active is None else where_row(active, pushed, self._queue)
        return self.latest()

    def set_lengths(self, lengths: Tensor, rows: Tensor) -> None:
        """Other lengths [B] for `rows` [B] (bool), which are to be filled anew."""
        self._lengths = torch.where(rows, lengths, self._lengths)
        missing = int(self._lengths.max()) + 1 - self._queue.shape[1]
        if missing > 0:
            self._queue = torch.cat([self._queue, self._queue[:, -1:].repeat_interleave(missing, dim=1)], dim=1)

    def restart(self, values: Tensor, rows: Tensor) -> None:
        """Fill the queues of `rows` [B] (bool) with values [B, ...]."""
        self._queue = where_row(rows, values[:, None].expand_as(self._queue), self._queue)

    def latest(self) -> Tensor:
        """What has come out last: [B, ...]."""
        return self._queue[self._rows, self._lengths]


def _neutral_action(space: spaces.Space[Any], num_rows: int, device: torch.device) -> Tensor:
    """Zero, or what is nearest to it: [B] int64 or [B, A] float32."""
    if not isinstance(space, spaces.Box):
        return torch.zeros(num_rows, dtype=torch.int64, device=device)
    low, high = (torch.as_tensor(limit, device=device) for limit in (space.low, space.high))
    return torch.zeros(num_rows, *space.shape, device=device).clamp(low, high)
