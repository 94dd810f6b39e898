"""Delays of observations and actions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor

from envs.delay_line import DelayLine
from envs.wrappers.wrapped import Wrapped, WrappedEnv
from metarl.protocols import VectorEnv
from metarl.records import Record, Step


@dataclass(frozen=True)
class Delayed(Wrapped):
    """Delays observations and actions by a number of steps, by milliseconds or by both together, in whole steps.

    An episode's first observation is repeated until the delay has passed; until the first action arrives, the action is
    zero, or the point of the box nearest to zero. Latencies of a custom robot's own tasks are exact to one substep
    instead, see `envs.simulators.robot_fields`.
    """

    obs_delay: Any = 0  # delay of observations in steps: a number or a `Sampler`
    action_delay: Any = 0  # delay of actions in steps: a number or a `Sampler`
    obs_latency: Any = 0  # delay of observations in ms: a number or a `Sampler`
    action_latency: Any = 0  # delay of actions in ms: a number or a `Sampler`

    suffix: ClassVar[str] = "delayed"
    strengths: ClassVar[tuple[str, ...]] = ("obs_delay", "action_delay", "obs_latency", "action_latency")

    def make_env(self, num_rows: int, generator: torch.Generator) -> VectorEnv:
        """`num_rows` rows of the inner family, delayed.

        Raises:
            ValueError: for a delay in ms where the inner environment does not say how long a step is.
        """
        env = self.family.make_env(num_rows, generator)
        for name in ("obs_latency", "action_latency"):
            if getattr(self, name) != 0 and not hasattr(env, "seconds_per_step"):
                raise ValueError(f"{name} is in ms, but steps of {self.family.name} have no duration; use a delay")
        return _DelayedEnv(env, self)


class _DelayedEnv(WrappedEnv):
    def reset(self, tasks: Record) -> Step:
        step = self.env.reset(tasks)
        self._neutral = _neutral_action(self.action_space, self.num_rows, self.device)
        self._seen, self._sent = (
            DelayLine(self._lengths(name, tasks), start)
            for name, start in (("obs", step.obs), ("action", self._neutral))
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
        for name, delay, start in (("obs", self._seen, obs), ("action", self._sent, self._neutral)):
            delay.set_lengths(self._lengths(name, tasks), rows)
            delay.restart(start, rows)
        return self._seen.latest()

    def _lengths(self, name: str, tasks: Record) -> Tensor:
        """The delays of observations ("obs") or actions ("action") in steps, [B] int64."""
        steps = self.strength(f"{name}_delay", tasks).clamp(min=0).round()
        milliseconds = self.strength(f"{name}_latency", tasks).clamp(min=0)
        per_step = 1000 * getattr(self.env, "seconds_per_step", math.inf)
        return (steps + (milliseconds / per_step).round()).long()


def _neutral_action(space: spaces.Space[Any], num_rows: int, device: torch.device) -> Tensor:
    """The action nearest to zero: [B] int64 or [B, A] float32."""
    if not isinstance(space, spaces.Box):
        return torch.zeros(num_rows, dtype=torch.int64, device=device)
    low, high = (torch.as_tensor(limit, device=device) for limit in (space.low, space.high))
    return torch.zeros(num_rows, *space.shape, device=device).clamp(low, high)
