"""Action repeat: fewer decisions per episode."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from envs.wrappers.wrapped import Wrapped, WrappedEnv
from metarl.checks import at_least
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

    def reset(self, tasks: Record) -> Step:
        return self.env.reset(tasks)

    def restart(self, tasks: Record, rows: Tensor) -> Tensor:
        return self.env.restart(tasks, rows)  # pyright: ignore[reportAttributeAccessIssue]

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        step = self.env.step(action, active)
        going_on = ~step.episode_end if active is None else active & ~step.episode_end  # [B]
        num_steps = torch.ones(self.num_rows, device=self.device)
        for _ in range(self._repeat - 1):
            if self.device.type == "cpu" and not bool(going_on.any()):
                break
            later = self.env.step(action, going_on)
            num_steps = num_steps + going_on
            step = _joined(step, later, going_on)
            going_on = going_on & ~later.episode_end
        return step if step.metrics is None else replace(step, metrics=step.metrics / num_steps[:, None])


def _joined(step: Step, later: Step, rows: Tensor) -> Step:
    """Two steps combined into one, the second of which was taken only by `rows` [B]; metrics are summed."""
    metrics = step.metrics
    if metrics is not None and later.metrics is not None:
        metrics = metrics + torch.where(rows[:, None], later.metrics, 0.0)
    return Step(
        obs=later.obs,
        next_obs=torch.where(rows[:, None], later.next_obs, step.next_obs),
        reward=step.reward + torch.where(rows, later.reward, 0.0),
        terminated=step.terminated | (later.terminated & rows),
        truncated=step.truncated | (later.truncated & rows),
        metrics=metrics,
    )
