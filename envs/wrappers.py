"""What can lie between an agent and any task family: the time made visible, repeats, noise and delays.

    Delayed(Noisy(HalfCheetahVel(), obs_noise=Uniform(0, 0.1), action_noise=0.05), action_delay=Choice([0, 1, 2]))

Each is a family around a family. A strength is a number, or a range that it is drawn from for each task anew; then it
is one more parameter of the task (domain randomisation): the record of the inner task has it beside its own.

Nothing crosses the end of an episode: delays start empty, repeats stop. Rows that are not active keep what they have
seen. What the inner environment can do beside the contract, such as rendering, stays within reach.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from envs.samplers import Sampler, all_inside, task_record
from envs.torch_env import check_at_least, check_split
from metarl.protocols import Split, VectorEnv
from metarl.records import Record, Step


@dataclass(frozen=True)
class Wrapped:
    """What all of these families share."""

    family: Any  # a `TaskFamily`

    suffix: ClassVar[str]  # of the name
    strengths: ClassVar[tuple[str, ...]] = ()  # fields that are a number or a range

    def __post_init__(self) -> None:
        owner, tasks = type(self).__name__, vars(self.family.sample(1, "train", torch.Generator()))
        for name in self.strengths:
            value = getattr(self, name)
            is_range = isinstance(value, Sampler)
            if is_range and name in tasks:
                raise ValueError(f"{name} of {owner} is a range, but tasks of {self.family.name} have {name} already")
            if not is_range and (isinstance(value, bool) or not isinstance(value, (int, float))):
                raise ValueError(f"{name} of {owner} is {value!r}: allowed are numbers and ranges of them")
            least = float(_draws(value).min()) if is_range else value
            if not 0 <= least < math.inf:
                raise ValueError(f"{name} of {owner} is {value}: allowed are finite numbers from 0, and ranges of them")

    @property
    def name(self) -> str:
        return f"{self.family.name}_{self.suffix}"

    @property
    def horizon(self) -> int:
        return self.family.horizon

    @property
    def num_episodes(self) -> int:
        return self.family.num_episodes

    @property
    def observation_space(self) -> spaces.Box:
        return self.family.observation_space

    @property
    def action_space(self) -> spaces.Box | spaces.Discrete:
        return self.family.action_space

    @property
    def parameters(self) -> Mapping[str, Sampler]:
        """What tasks have beside the inner family's."""
        values = {name: getattr(self, name) for name in self.strengths}
        return {name: value for name, value in values.items() if isinstance(value, Sampler)}

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> Record:
        """The inner family's tasks with this one's own parameters.

        Of the split "ood", everything lies outside that can; what cannot is as in "test".

        Raises:
            ValueError: for an unknown split, or "ood" where nothing can lie outside.
        """
        check_split(self.name, split)
        inner_split = split
        if split == "ood" and not self._inner_has_ood():
            if not any(sampler.has_ood for sampler in self.parameters.values()):
                raise ValueError(f"split of {self.name} is 'ood': allowed are 'train', 'test'")
            inner_split = "test"
        tasks = self.family.sample(num_tasks, inner_split, generator)
        if not self.parameters:
            return tasks
        values = {name: sampler.sample((num_tasks,), split, generator) for name, sampler in self.parameters.items()}
        return task_record(tuple(values), type(tasks))(**vars(tasks), **values)

    @property
    def in_training_range(self) -> Callable[[Record], Tensor] | None:
        """Which tasks training can draw; None where the inner family, whose tasks may lie outside, does not say."""
        inner: Callable[[Record], Tensor] | None = getattr(self.family, "in_training_range", None)
        own = self.parameters
        if not own:
            return inner
        if inner is None:
            return None if self._inner_has_ood() else lambda tasks: all_inside(tasks, own)
        return lambda tasks: inner(tasks) & all_inside(tasks, own)

    def bounds(self, tasks: Record, num_episodes: int) -> dict[str, list[float]]:
        """Empty: the inner family's hold without what lies between."""
        return {}

    def _inner_has_ood(self) -> bool:
        try:
            self.family.sample(1, "ood", torch.Generator())
        except ValueError:
            return False
        return True


@dataclass(frozen=True)
class TimeAware(Wrapped):
    """The share of the horizon that is over, from 0 to 1, as a last entry of the observation."""

    suffix: ClassVar[str] = "time_aware"

    @property
    def observation_space(self) -> spaces.Box:
        inner = self.family.observation_space
        return spaces.Box(np.append(inner.low, np.float32(0)), np.append(inner.high, np.float32(1)))

    def make_env(self, num_rows: int, generator: torch.Generator) -> VectorEnv:
        return _TimeAwareEnv(self.family.make_env(num_rows, generator), self)

    def bounds(self, tasks: Record, num_episodes: int) -> dict[str, list[float]]:
        """The inner family's."""
        return self.family.bounds(tasks, num_episodes)


@dataclass(frozen=True)
class ActionRepeat(Wrapped):
    """Each action is taken `repeat` times, or until the episode ends; rewards add up, metrics are means.

    The horizon is as much shorter, rounded up.
    """

    repeat: int = 2

    suffix: ClassVar[str] = "repeat"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("ActionRepeat", 1, repeat=self.repeat)

    @property
    def horizon(self) -> int:
        return math.ceil(self.family.horizon / self.repeat)

    def make_env(self, num_rows: int, generator: torch.Generator) -> VectorEnv:
        return _ActionRepeatEnv(self.family.make_env(num_rows, generator), self)


@dataclass(frozen=True)
class Noisy(Wrapped):
    """Gaussian noise on observations and on actions, in their own units.

    A discrete action is, with the probability `action_noise`, one that is drawn from all of them.
    """

    obs_noise: Any = 0.0  # standard deviation: a number or a `Sampler`
    action_noise: Any = 0.0  # likewise, before the action is clipped; or a probability

    suffix: ClassVar[str] = "noisy"
    strengths: ClassVar[tuple[str, ...]] = ("obs_noise", "action_noise")

    def __post_init__(self) -> None:
        super().__post_init__()
        noise = self.action_noise
        largest = float(_draws(noise).max()) if isinstance(noise, Sampler) else noise
        if isinstance(self.family.action_space, spaces.Discrete) and largest > 1:
            raise ValueError(f"action_noise of Noisy is {noise}: allowed are probabilities, as actions are discrete")

    @property
    def observation_space(self) -> spaces.Box:
        """Without limits, if there is noise: it has none."""
        inner = self.family.observation_space
        return inner if self.obs_noise == 0 else spaces.Box(-np.inf, np.inf, inner.shape)

    def make_env(self, num_rows: int, generator: torch.Generator) -> VectorEnv:
        return _NoisyEnv(self.family.make_env(num_rows, generator), self, generator)


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


class WrappedEnv:
    """An environment around another; `VectorEnv`, and whatever else the other is."""

    def __init__(self, env: VectorEnv, family: Wrapped) -> None:
        self.env, self.family = env, family
        self.num_rows, self.device = env.num_rows, env.device
        self.observation_space, self.action_space = family.observation_space, family.action_space
        for name in ("render", "seconds_per_step", "metric_names"):  # by which `Renders` and `Measures` are known
            if hasattr(env, name):
                setattr(self, name, getattr(env, name))

    def __getattr__(self, name: str) -> Any:
        """What is not of the contract, such as `num_diverged`, `close` or what a viewer needs."""
        if name == "env":  # not made yet
            raise AttributeError(name)
        return getattr(self.env, name)

    def _strength(self, name: str, tasks: Record) -> Tensor:
        """Of each row, [B] float32."""
        value = getattr(self.family, name)
        if isinstance(value, Sampler):
            return getattr(tasks, name).repeat_interleave(self.num_rows // len(tasks)).to(self.device)
        return torch.full((self.num_rows,), float(value), device=self.device)


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


class _NoisyEnv(WrappedEnv):
    def __init__(self, env: VectorEnv, family: Noisy, generator: torch.Generator) -> None:
        super().__init__(env, family)
        self._source = generator
        # Noise has a stream of its own: when inner episodes end, and draw from theirs, must not change it.
        self._generator = torch.Generator(generator.device)
        self._is_noisy = {name: getattr(family, name) != 0 for name in family.strengths}

    def reset(self, tasks: Record) -> Step:
        step = self.env.reset(tasks)
        seed = torch.randint(2**63 - 1, (), generator=self._source, device=self._source.device)
        self._generator.manual_seed(int(seed))
        self._std, self._action_std = (self._strength(name, tasks).clamp(min=0) for name in self.family.strengths)
        if not self._is_noisy["obs_noise"]:
            return step
        self._obs = self._noisy(step.obs)
        return replace(step, obs=self._obs.clone(), next_obs=self._obs.clone())

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        step = self.env.step(self._disturbed(action) if self._is_noisy["action_noise"] else action, active)
        if not self._is_noisy["obs_noise"]:
            return step
        # As many random numbers at every step, whoever ends, so that rows do not depend on each other.
        next_obs, start = self._noisy(step.next_obs), self._noisy(step.obs)
        obs = torch.where(step.episode_end[:, None], start, next_obs)
        if active is not None:
            obs = torch.where(active[:, None], obs, self._obs)
            next_obs = torch.where(active[:, None], next_obs, self._obs)
        self._obs = obs
        return replace(step, obs=obs.clone(), next_obs=next_obs)

    def restart(self, tasks: Record, rows: Tensor) -> Tensor:
        obs = self.env.restart(tasks, rows)  # pyright: ignore[reportAttributeAccessIssue]
        std, action_std = (self._strength(name, tasks).clamp(min=0) for name in self.family.strengths)
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
        return self._strength(name, tasks).clamp(min=0).round().long()


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
        self._queue = pushed if active is None else _where_row(active, pushed, self._queue)
        return self.latest()

    def set_lengths(self, lengths: Tensor, rows: Tensor) -> None:
        """Other lengths [B] for `rows` [B] (bool), which are to be filled anew."""
        self._lengths = torch.where(rows, lengths, self._lengths)
        missing = int(self._lengths.max()) + 1 - self._queue.shape[1]
        if missing > 0:
            self._queue = torch.cat([self._queue, self._queue[:, -1:].repeat_interleave(missing, dim=1)], dim=1)

    def restart(self, values: Tensor, rows: Tensor) -> None:
        """Fill the queues of `rows` [B] (bool) with values [B, ...]."""
        self._queue = _where_row(rows, values[:, None].expand_as(self._queue), self._queue)

    def latest(self) -> Tensor:
        """What has come out last: [B, ...]."""
        return self._queue[self._rows, self._lengths]


def _neutral_action(space: spaces.Space[Any], num_rows: int, device: torch.device) -> Tensor:
    """Zero, or what is nearest to it: [B] int64 or [B, A] float32."""
    if not isinstance(space, spaces.Box):
        return torch.zeros(num_rows, dtype=torch.int64, device=device)
    low, high = (torch.as_tensor(limit, device=device) for limit in (space.low, space.high))
    return torch.zeros(num_rows, *space.shape, device=device).clamp(low, high)


def _where_row(condition: Tensor, chosen: Tensor, otherwise: Tensor) -> Tensor:
    return torch.where(condition.view(-1, *(1,) * (chosen.ndim - 1)), chosen, otherwise)


def _joined(step: Step, later: Step, rows: Tensor) -> Step:
    """Two steps as one, the second of which only `rows` [B] have taken; metrics add up."""
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


def _draws(sampler: Sampler) -> Tensor:
    """Many values of every split."""
    generator = torch.Generator().manual_seed(0)
    splits: tuple[Split, ...] = ("train", "ood") if sampler.has_ood else ("train",)
    return torch.cat([sampler.sample((1000,), split, generator) for split in splits])
