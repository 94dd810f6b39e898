"""Action repeat: fewer decisions per episode."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from envs.wrappers.wrapped import Wrapped, WrappedEnv
from metarl.checks import at_least
from metarl.parallel import anywhere
from metarl.protocols import VectorEnv
from metarl.records import Record, Step


@dataclass(frozen=True)
class ActionRepeat(Wrapped):
    """Takes each action `repeat` times, or until the episode ends; rewards are summed, metrics averaged.

    The horizon is divided by `repeat`, rounded up.
    """

    repeat: int = 2  # number of steps for which each action is taken

    suffix: ClassVar[str] = "repeat"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "repeat")

    @property
    def horizon(self) -> int:
        return math.ceil(self.family.horizon / self.repeat)

    def make_env(self, num_rows: int, generator: torch.Generator) -> VectorEnv:
        return _ActionRepeatEnv(self.family.make_env(num_rows, generator), self)


class _ActionRepeatEnv(WrappedEnv):
    def __init__(self, env: VectorEnv, family: ActionRepeat) -> None:
        super().__init__(env, family)
        self._repeat = family.repeat
        if hasattr(env, "seconds_per_step"):
            self.seconds_per_step: float = family.repeat * getattr(env, "seconds_per_step")  # noqa: B009

    @property
    def steps_per_episode(self) -> int | None:
        inner: int | None = getattr(self.env, "steps_per_episode", None)
        return None if inner is None else math.ceil(inner / self._repeat)

    def reset(self, tasks: Record) -> Step:
        return self.env.reset(tasks)

    def restart(self, tasks: Record, rows: Tensor) -> Tensor:
        return self.env.restart(tasks, rows)  # pyright: ignore[reportAttributeAccessIssue]

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        step = self.env.step(action, active)
        going_on = ~step.episode_end if active is None else active & ~step.episode_end  # [B]
        metrics = [] if step.metrics is None else [step.metrics]  # of each of the steps, NaN where a row took none
        for _ in range(self._repeat - 1):
            if self.device.type == "cpu" and not anywhere(going_on):
                break
            later = self.env.step(action, going_on)
            step = _joined(step, later, going_on)
            if later.metrics is not None:
                metrics.append(torch.where(going_on[:, None], later.metrics, math.nan))
            going_on = going_on & ~later.episode_end
        return replace(step, metrics=torch.stack(metrics).nanmean(0)) if metrics else step


def _joined(step: Step, later: Step, rows: Tensor) -> Step:
    """Two steps combined into one, the second of which was taken only by `rows` [B]; without metrics."""
    return Step(
        obs=later.obs,
        next_obs=torch.where(rows[:, None], later.next_obs, step.next_obs),
        reward=step.reward + torch.where(rows, later.reward, 0.0),
        terminated=step.terminated | (later.terminated & rows),
        truncated=step.truncated | (later.truncated & rows),
        privileged=later.privileged,
    )
