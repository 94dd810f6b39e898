"""The observations of several steps, for policies without a memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from envs.rows import where_row
from envs.wrappers.wrapped import Wrapped, WrappedEnv
from metarl.checks import at_least
from metarl.protocols import VectorEnv
from metarl.records import Record, Step


@dataclass(frozen=True)
class History(Wrapped):
    """Observes the last steps of the episode in a row, the latest one last; before its start, its first observation."""

    num_steps: int = 3  # number of observations in a row

    suffix: ClassVar[str] = "history"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "num_steps")

    @property
    def observation_space(self) -> spaces.Box:
        inner = self.family.observation_space
        return spaces.Box(np.tile(inner.low, self.num_steps), np.tile(inner.high, self.num_steps))

    def make_env(self, num_rows: int, generator: torch.Generator) -> VectorEnv:
        return _HistoryEnv(self.family.make_env(num_rows, generator), self)

    def bounds(self, tasks: Record, num_episodes: int) -> Mapping[str, Tensor | Sequence[float]]:
        """The inner family's."""
        return self.family.bounds(tasks, num_episodes)


class _HistoryEnv(WrappedEnv):
    family: History

    def reset(self, tasks: Record) -> Step:
        step = self.env.reset(tasks)
        self._seen = self._repeated(step.obs)  # [B, num_steps, O]
        return replace(step, obs=self._seen.flatten(1), next_obs=self._seen.flatten(1))

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        step = self.env.step(action, active)
        seen = torch.cat([self._seen[:, 1:], step.next_obs[:, None]], dim=1)
        if active is not None:
            seen = where_row(active, seen, self._seen)
        self._seen = where_row(step.episode_end, self._repeated(step.obs), seen)
        return replace(step, obs=self._seen.flatten(1), next_obs=seen.flatten(1))

    def restart(self, tasks: Record, rows: Tensor) -> Tensor:
        obs = self.env.restart(tasks, rows)  # pyright: ignore[reportAttributeAccessIssue]
        self._seen = where_row(rows, self._repeated(obs), self._seen)
        return self._seen.flatten(1)

    def _repeated(self, obs: Tensor) -> Tensor:
        return obs[:, None].expand(-1, self.family.num_steps, -1).clone()
