"""Visible time: agents see how much of an episode has passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from envs.wrappers.wrapped import Wrapped, WrappedEnv
from metarl.protocols import VectorEnv
from metarl.records import Record, Step


@dataclass(frozen=True)
class TimeAware(Wrapped):
    """Appends the elapsed fraction of the horizon, from 0 to 1, to the observation."""

    suffix: ClassVar[str] = "time_aware"

    @property
    def observation_space(self) -> spaces.Box:
        inner = self.family.observation_space
        return spaces.Box(np.append(inner.low, np.float32(0)), np.append(inner.high, np.float32(1)))

    def make_env(self, num_rows: int, generator: torch.Generator) -> VectorEnv:
        return _TimeAwareEnv(self.family.make_env(num_rows, generator), self)

    def bounds(self, tasks: Record, num_episodes: int) -> Mapping[str, Tensor | Sequence[float]]:
        """The inner family's."""
        return self.family.bounds(tasks, num_episodes)


class _TimeAwareEnv(WrappedEnv):
    def reset(self, tasks: Record) -> Step:
        step = self.env.reset(tasks)
        self._elapsed = torch.zeros(self.num_rows, dtype=torch.int64, device=self.device)
        return replace(step, obs=self._seen(step.obs), next_obs=self._seen(step.next_obs))

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        step = self.env.step(action, active)
        self._elapsed = self._elapsed + (1 if active is None else active)
        next_obs = self._seen(step.next_obs)
        self._elapsed = self._elapsed.masked_fill(step.episode_end, 0)
        return replace(step, obs=self._seen(step.obs), next_obs=next_obs)

    def restart(self, tasks: Record, rows: Tensor) -> Tensor:
        self._elapsed = self._elapsed.masked_fill(rows, 0)
        return self._seen(self.env.restart(tasks, rows))  # pyright: ignore[reportAttributeAccessIssue]

    def _seen(self, obs: Tensor) -> Tensor:
        return torch.cat([obs, (self._elapsed / self.family.horizon)[:, None]], dim=1)
