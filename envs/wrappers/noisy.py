"""Noise on observations and actions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from envs.samplers import Sampler, draws
from envs.wrappers.wrapped import Wrapped, WrappedEnv
from metarl.protocols import VectorEnv
from metarl.records import Record, Step


@dataclass(frozen=True)
class Noisy(Wrapped):
    """Adds Gaussian noise to observations and actions, in their own units.

    A discrete action is replaced by a uniformly random one with probability `action_noise`.
    """

    obs_noise: Any = 0.0  # standard deviation on observations: a number or a `Sampler`
    action_noise: Any = 0.0  # standard deviation on continuous actions before clipping; probability for discrete ones

    suffix: ClassVar[str] = "noisy"
    strengths: ClassVar[tuple[str, ...]] = ("obs_noise", "action_noise")

    def __post_init__(self) -> None:
        super().__post_init__()
        noise = self.action_noise
        largest = float(draws(noise).max()) if isinstance(noise, Sampler) else noise
        if isinstance(self.family.action_space, spaces.Discrete) and largest > 1:
            raise ValueError(f"action_noise is {noise}; must be a probability, because actions are discrete")

    @property
    def observation_space(self) -> spaces.Box:
        """The inner space, without limits if there is noise."""
        inner = self.family.observation_space
        return inner if self.obs_noise == 0 else spaces.Box(-np.inf, np.inf, inner.shape)

    def make_env(self, num_rows: int, generator: torch.Generator) -> VectorEnv:
        return _NoisyEnv(self.family.make_env(num_rows, generator), self, generator)


class _NoisyEnv(WrappedEnv):
    def __init__(self, env: VectorEnv, family: Noisy, generator: torch.Generator) -> None:
        super().__init__(env, family)
        self._source = generator
        # Noise has its own random stream, which must not depend on when inner episodes end.
        self._generator = torch.Generator(generator.device)
        self._is_noisy = {name: getattr(family, name) != 0 for name in family.strengths}

    def reset(self, tasks: Record) -> Step:
        step = self.env.reset(tasks)
        seed = torch.randint(2**63 - 1, (), generator=self._source, device=self._source.device)
        self._generator.manual_seed(int(seed))
        self._std, self._action_std = (self.strength(name, tasks).clamp(min=0) for name in self.family.strengths)
        if not self._is_noisy["obs_noise"]:
            return step
        self._obs = self._noisy(step.obs)
        return replace(step, obs=self._obs.clone(), next_obs=self._obs.clone())

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        step = self.env.step(self._disturbed(action) if self._is_noisy["action_noise"] else action, active)
        if not self._is_noisy["obs_noise"]:
            return step
        # Always draw the same amount of random numbers per step, which keeps rows independent.
        next_obs, start = self._noisy(step.next_obs), self._noisy(step.obs)
        obs = torch.where(step.episode_end[:, None], start, next_obs)
        if active is not None:
            obs = torch.where(active[:, None], obs, self._obs)
            next_obs = torch.where(active[:, None], next_obs, self._obs)
        self._obs = obs
        return replace(step, obs=obs.clone(), next_obs=next_obs)

    def restart(self, tasks: Record, rows: Tensor) -> Tensor:
        obs = self.env.restart(tasks, rows)  # pyright: ignore[reportAttributeAccessIssue]
        std, action_std = (self.strength(name, tasks).clamp(min=0) for name in self.family.strengths)
        self._std = torch.where(rows, std, self._std)
        self._action_std = torch.where(rows, action_std, self._action_std)
        if not self._is_noisy["obs_noise"]:
            return obs
        self._obs = torch.where(rows[:, None], self._noisy(obs), self._obs)
        return self._obs.clone()

    def _noisy(self, obs: Tensor) -> Tensor:
        return obs + self._std[:, None] * torch.randn(obs.shape, generator=self._generator, device=self.device)

    def _disturbed(self, action: Tensor) -> Tensor:
        space, random = self.action_space, {"generator": self._generator, "device": self.device}
        if isinstance(space, spaces.Discrete):
            other = torch.randint(int(space.n), action.shape, **random)
            return torch.where(torch.rand(action.shape, **random) < self._action_std, other, action)
        low, high = (torch.as_tensor(limit, device=self.device) for limit in (space.low, space.high))
        return action.clamp(low, high) + self._action_std[:, None] * torch.randn(action.shape, **random)
