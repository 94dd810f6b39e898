"""How hard a policy drives its robot: the rate of its actions, their saturation and the actuators' power."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from envs.wrappers.wrapped import SameTask, WrappedEnv
from metarl.protocols import VectorEnv
from metarl.records import Record, Step

_TORQUES = "qfrc_actuator"  # MuJoCo's name of the actuators' forces on the joints


class Effort(SameTask):
    """Adds metrics of continuous actions; rewards, observations and the name stay the family's own.

    action_rate: mean absolute change of an action's numbers from one step to the next, as a fraction of half their
    range, not measured at an episode's first step. saturation: fraction of the numbers at a bound or beyond. power:
    W, the absolute power of all joints' actuators, in MuJoCo's units; only for MuJoCo's robots, not measured at an
    episode's last step.
    """

    def __post_init__(self) -> None:
        space = self.family.action_space
        if not isinstance(space, spaces.Box) or not np.isfinite([space.low, space.high]).all():
            raise ValueError(f"actions of {self.family.name} are {space}; must be numbers with bounds")

    def make_env(self, num_rows: int, generator: torch.Generator) -> VectorEnv:
        return _EffortEnv(self.family.make_env(num_rows, generator), self)


class _EffortEnv(WrappedEnv):
    def __init__(self, env: VectorEnv, family: Effort) -> None:
        super().__init__(env, family)
        self._physics = getattr(env, "physics", None)
        own = ("action_rate", "saturation", *(() if self._physics is None else ("power",)))
        self._inner_names = tuple(getattr(env, "metric_names", ()))
        self.metric_names = (*self._inner_names, *own)
        space = env.action_space
        assert isinstance(space, spaces.Box)  # `Effort` has checked it
        low, high = (torch.as_tensor(end, device=self.device) for end in (space.low, space.high))
        self._low, self._high, self._half = low, high, (high - low) / 2

    def reset(self, tasks: Record) -> Step:
        step = self.env.reset(tasks)
        self._before = torch.full((self.num_rows, len(self._low)), torch.nan, device=self.device)
        if self._physics is not None:
            self._physics.data(_TORQUES)  # engines fill a field from the first time on that it is asked for
        return self._with(step, *[torch.full_like(step.reward, torch.nan)] * (3 if self._physics else 2))

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        step = self.env.step(action, active)
        carried_out = action.clamp(self._low, self._high)
        rate = ((carried_out - self._before).abs() / self._half).mean(1)
        saturation = ((action <= self._low) | (action >= self._high)).float().mean(1)
        self._before = torch.where(step.episode_end[:, None], torch.nan, carried_out)
        if self._physics is None:
            return self._with(step, rate, saturation)
        power = (self._physics.data(_TORQUES) * self._physics.qvel).abs().sum(1).float()
        return self._with(step, rate, saturation, torch.where(step.episode_end, torch.nan, power))

    def _with(self, step: Step, *values: Tensor) -> Step:
        """A step with these metrics [B] after those of the inner environment."""
        own = torch.stack(values, 1)
        return replace(step, metrics=own if step.metrics is None else torch.cat([step.metrics, own], 1))
