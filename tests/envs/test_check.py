"""Every family of the catalog obeys the laws, and `check_family` catches families that break one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.catalog import FAMILIES, load, make
from envs.check import check_family
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.drawing import DrawnEnv
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.navigation import PointNavigation, PointTasks, Semicircle
from metarl.records import Step

# the rows of metaworld are processes, which take long to start
NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name == "metaworld" else []) for name in FAMILIES]


@pytest.mark.parametrize("name", NAMES)
def test_every_family_obeys_the_laws(name: str) -> None:
    # Native physics takes its time; what happens at a time limit happens at an early one as well.
    is_slow = not FAMILIES[name].startswith("envs.torch_families")
    check_family(make(name, horizon=7) if is_slow else make(name))


@pytest.mark.parametrize(
    "family",
    [
        Semicircle(dense=True),
        GridNavi(observation="xy", size=3, horizon=4),
        BernoulliBandit(num_arms=2, num_pulls=1),
        PointNavigation(horizon=1),
    ],
)
def test_variants_obey_the_laws(family: Any) -> None:
    check_family(family, num_tasks=4, copies=3, seed=7)


class _Environment(DrawnEnv[PointTasks]):
    """A sound environment for the broken ones below to spoil."""


class _WithoutTimeLimit(_Environment):
    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        step = super().step(action, active)
        return replace(step, truncated=torch.zeros_like(step.truncated))


class _EarlyTimeLimit(_Environment):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._horizon -= 1


class _NextStepReset(_Environment):
    """Acts as environments with next-step autoreset do: after an end, obs is still the last one."""

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        step = super().step(action, active)
        return replace(step, obs=torch.where(step.episode_end[:, None], step.next_obs, step.obs))


class _StepsFrozenRows(_Environment):
    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        return super().step(action)


class _CountsFrozenRows(_Environment):
    """The time limit of frozen rows runs on."""

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        step = super().step(action, active)
        if active is not None:
            assert self._elapsed is not None
            self._elapsed = torch.where(active, self._elapsed, (self._elapsed + 1).clamp(max=self._horizon - 1))
        return step


class _RemembersPauses(_Environment):
    """Frozen rows look frozen, and later rewards tell of it."""

    def reset(self, tasks: PointTasks) -> Step:
        self._pauses = torch.zeros(self.num_rows)
        return super().reset(tasks)

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        step = super().step(action, active)
        if active is None:
            return step
        self._pauses = self._pauses + ~active
        return replace(step, reward=(step.reward - self._pauses) * active)


class _LiveMemory(_Environment):
    """Returns one buffer again and again."""

    def reset(self, tasks: PointTasks) -> Step:
        step = super().reset(tasks)
        self._buffer = step.reward.clone()
        return replace(step, reward=self._buffer)

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        step = super().step(action, active)
        self._buffer.copy_(step.reward)
        return replace(step, reward=self._buffer)


class _TiledCopies(_Environment):
    def reset(self, tasks: PointTasks) -> Step:
        copies = self.num_rows // len(tasks)
        if copies * len(tasks) != self.num_rows:
            raise ValueError("num_rows")
        return super().reset(tasks.map(lambda value: value.repeat(copies, 1)))


class _DoublePrecision(_Environment):
    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        step = super().step(action, active)
        return replace(step, reward=step.reward.double())


class _RemembersEpisodes(_Environment):
    """A new episode starts where it should, yet rewards depend on how many came before."""

    def reset(self, tasks: PointTasks) -> Step:
        self._ends = torch.zeros(self.num_rows)
        return super().reset(tasks)

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        step = super().step(action, active)
        reward = step.reward - self._ends
        self._ends = self._ends + step.episode_end
        return replace(step, reward=reward if active is None else reward * active)


class _RewardedReset(_Environment):
    def reset(self, tasks: PointTasks) -> Step:
        step = super().reset(tasks)
        return replace(step, reward=step.reward + 1)


class _Unclipped(_Environment):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._box = None


@dataclass(frozen=True)
class _Family(Semicircle):
    environment: type[_Environment] = _Environment

    def make_env(self, num_rows: int, generator: torch.Generator) -> DrawnEnv[PointTasks]:
        return self.environment(self, num_rows, generator)


@dataclass(frozen=True)
class _GlobalRandomness(_Family):
    def sample(self, num_tasks: int, split: Any, generator: torch.Generator) -> PointTasks:
        np.random.random()
        return super().sample(num_tasks, split, generator)


@dataclass(frozen=True)
class _Unseeded(_Family):
    def sample(self, num_tasks: int, split: Any, generator: torch.Generator) -> PointTasks:
        return super().sample(num_tasks, split, torch.default_generator)


@dataclass(frozen=True)
class _AnySplit(_Family):
    def sample(self, num_tasks: int, split: Any, generator: torch.Generator) -> PointTasks:
        return super().sample(num_tasks, split if split == "ood" else "train", generator)


@dataclass(frozen=True)
class _OneTask(_Family):
    def sample(self, num_tasks: int, split: Any, generator: torch.Generator) -> PointTasks:
        return super().sample(num_tasks, split, generator).map(torch.ones_like)


@dataclass(frozen=True)
class _OverlappingSplits(_Family):
    def sample(self, num_tasks: int, split: Any, generator: torch.Generator) -> PointTasks:
        tasks = super().sample(num_tasks, split, generator)
        return replace(tasks, goal=tasks.goal.flip(1)) if split == "ood" else tasks


@dataclass(frozen=True)
class _NotFiniteOutside(_Family):
    """Sound in training, not a number on the other half of the circle."""

    dense: bool = True

    def reward(self, tasks: PointTasks, *arguments: Any, **named: Any) -> Tensor:
        return super().reward(tasks, *arguments, **named) + 0 * tasks.goal[:, 1].log()


@dataclass(frozen=True)
class _LeakingTasks(_Family):
    dense: bool = True

    def reward(self, tasks: PointTasks, *arguments: Any, **named: Any) -> Tensor:
        return super().reward(replace(tasks, goal=tasks.goal.mean(0, keepdim=True)), *arguments, **named)


@dataclass(frozen=True)
class _NotFinite(_Family):
    def reward(self, tasks: PointTasks, *arguments: Any, **named: Any) -> Tensor:
        return super().reward(tasks, *arguments, **named).log()


@dataclass(frozen=True)
class _UnseededNoise(_Family):
    def reward(self, tasks: PointTasks, *arguments: Any, **named: Any) -> Tensor:
        return torch.rand(len(tasks))


@dataclass(frozen=True)
class _WrongBounds(_Family):
    def bounds(self, tasks: PointTasks, num_episodes: int) -> Any:
        return {"oracle": [0.0]}


@pytest.mark.parametrize(
    ("family", "law"),
    [
        (_Family(environment=_WithoutTimeLimit), "horizon: an episode goes on"),
        (_Family(environment=_EarlyTimeLimit), "horizon: an episode is truncated before"),
        (_Family(environment=_NextStepReset), "autoreset: obs after the end"),
        (_Family(environment=_StepsFrozenRows), "active: a row that is not active changes its observation"),
        (_Family(environment=_CountsFrozenRows), "horizon: an episode is truncated before"),
        (_Family(environment=_RemembersPauses), "active: a row goes on differently"),
        (_Family(environment=_LiveMemory, dense=True), "step: tensors that were returned earlier"),
        (_Family(environment=_TiledCopies, dense=True), "reset: the copies of a task"),
        (_Family(environment=_DoublePrecision), "step 0: reward is torch.float64"),
        (_Family(environment=_RemembersEpisodes), "autoreset: an episode depends on the one before"),
        (_Family(environment=_RewardedReset), "reset: the reward is not zero"),
        (_Family(environment=_Unclipped), "clipping"),
        (_GlobalRandomness(), "randomness"),
        (_Unseeded(), "the same seed gives other tasks"),
        (_AnySplit(), "splits: sampling the split 'no_such_split'"),
        (_OneTask(), "another seed gives the same 64 tasks"),
        (_OverlappingSplits(), "lie inside the training range"),
        (_LeakingTasks(), "isolation"),
        (_NotFinite(), "reward is not finite"),
        (_NotFiniteOutside(), "reward is not finite"),
        (_UnseededNoise(), "seeding"),
        (_WrongBounds(), "1 entries for 3 episodes"),
    ],
    ids=lambda value: value.environment.__name__ + type(value).__name__ if isinstance(value, _Family) else None,
)
def test_broken_families_are_caught(family: Any, law: str) -> None:
    with pytest.raises(AssertionError, match=law) as caught:
        check_family(family)
    assert str(caught.value).startswith("semicircle: ")


@pytest.mark.parametrize("family", [_Family(), _Family(dense=True)])
def test_the_sound_family_they_are_made_from_passes(family: Any) -> None:
    check_family(family)


@pytest.mark.parametrize("argument", ["num_tasks", "copies"])
def test_too_small_a_check_is_refused(argument: str) -> None:
    size: dict[str, Any] = {argument: 1}
    with pytest.raises(ValueError, match=f"{argument} is 1"):
        check_family(make("grid_navi"), **size)


def test_an_unknown_family_name_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match="did you mean 'grid_navi'"):
        load("grid_navy")
    with pytest.raises(ValueError, match="must be one of bernoulli_bandit, "):
        load("zzz")


def test_naming_the_families_imports_no_torch() -> None:
    program = "import sys, envs.catalog; sys.exit('torch' in sys.modules or 'mujoco' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_make_names_an_unknown_field() -> None:
    assert make("grid_navi", size=7) == GridNavi(size=7)
    with pytest.raises(ValueError, match="no field 'sise'; must be one of size, horizon"):
        make("grid_navi", sise=7)
