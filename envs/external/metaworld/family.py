"""Meta-World's benchmarks as a task family: ML1-<env>, ML10, ML25, ML45, MT1-<env>, MT10, MT25, MT50, or your own sets.

Yu et al. Meta-World: a benchmark and evaluation for multi-task and meta reinforcement learning (2019).
McLean et al. Meta-World+: an improved, standardized, RL benchmark (2025), for the versions of the reward.

    Metaworld("ML1-push-v3")
    Metaworld("ML-custom", train_envs=("reach-v3", "push-v3"), test_envs=("door-open-v3",))

A task is an environment and a vector that places its object and its goal. The benchmark classes of the package draw
them, 50 for each environment, and `set_task` gives them to environments; nothing else of the package takes part. The
rows run in processes of another interpreter (`interpreter.py`), as the package needs a MuJoCo of its own.

1. ML: the goal is hidden, zeros in the observation. The test tasks of ML1 are other goals than those of training; ML10,
   ML25 and ML45 have other environments in them. MT: the goal is visible and, among several environments, a one-hot
   code of the environment follows it. The package has no test tasks for MT: "test" is the training tasks.
2. `sample` draws environments in equal numbers and, as long as there are any left, goals that it has not drawn yet: 50
   tests tasks of ML1 are all that there are.
3. An episode lasts 500 steps and is not cut short by success. It has succeeded if any of its steps has. Each row's
   episodes are counted, so failures, which take longest where success ends an episode, are not crowded out.
4. Actions beyond [-1, 1] are clipped in all four dimensions; the package clips the first three.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from envs.external import CrashedTooOften
from envs.external.metaworld import worker
from envs.external.metaworld.interpreter import find_python
from envs.external.metaworld.process import Failed, MetaworldProcess
from envs.external.rows import Probed
from envs.external.vector_env import Values, VisibleThirdPartyEnv
from envs.external.workers import RowsHolder, WorkerDied
from envs.simulators.cpu_count import available_cpus
from envs.splits import check_split
from metarl.checks import at_least, literals, positive
from metarl.protocols import Split
from metarl.records import Record

OBSERVATION_SIZE = 39  # the hand, the gripper and two objects, now and one step before, and the goal
LONGEST_EPISODE = 500  # which the package allows
SECONDS_PER_STEP = 0.0125  # five of MuJoCo's steps

_NUM_ENVS = {"ML10": 15, "ML25": 30, "ML45": 50, "MT10": 10, "MT25": 25, "MT50": 50}
_OF_ONE = re.compile(r"(ML1|MT1)-[a-z-]+-v\d+")
_CUSTOM = ("ML-custom", "MT-custom")


@dataclass(frozen=True)
class MetaworldTasks(Record):
    """Environments with the vectors that place their objects and goals."""

    env: Tensor  # [N] int64, index into the benchmark's environments: those of training first
    goal: Tensor  # [N] int64, number of the goal among the 50 of the environment in this split
    vector: Tensor  # [N, V] float64; zeros follow where the environment takes fewer numbers


@dataclass(frozen=True)
class Goals:
    """The tasks of one environment in one split."""

    env: int  # its index in the benchmark
    vectors: np.ndarray  # [50, V] float64


@dataclass(frozen=True)
class Benchmark:
    """The environments of a benchmark and the tasks of its splits."""

    env_names: tuple[str, ...]
    train: tuple[Goals, ...]
    test: tuple[Goals, ...]
    vector_sizes: tuple[int, ...]  # how many numbers the vector of each environment has
    versions: dict[str, Any]  # of the interpreter that has the package, of its packages and of what it speaks with us

    @property
    def longest_vector(self) -> int:
        return max(self.vector_sizes)


class MetaworldEnv(VisibleThirdPartyEnv):
    """Rows of Meta-World's environments."""

    def scripted_action(self) -> Tensor:
        """What the package's own scripted policies do now, [B, 4]; they solve the tasks of MT, where the goal is seen.

        Raises:
            RuntimeError: when called before `reset`, or a worker process has ended.
        """
        if self._tasks is None:
            raise RuntimeError("scripted_action was called before reset: the rows have no tasks yet")
        for holder in self._holders:
            holder.ask("scripted_actions")
        try:
            actions = [holder.answer()[0] for holder in self._holders]
        except (Failed, WorkerDied) as error:
            raise RuntimeError(f"{self._name}: {error}") from error
        return torch.from_numpy(np.concatenate(actions)).to(self.device)


@dataclass(frozen=True)
class Metaworld:
    """Meta-World's robot arm: reach, push, open a door ... with goals that training does not know."""

    benchmark: str = "ML1-reach-v3"  # name: ML1-<env>, ML10, ML25, ML45, MT1-<env>, MT10, ..., ML-custom, MT-custom
    train_envs: tuple[str, ...] = ()  # environments of training, for ML-custom and MT-custom
    test_envs: tuple[str, ...] = ()  # environments of the test tasks, for ML-custom
    reward_version: Literal["v1", "v2"] = "v2"  # version of the package's reward functions
    benchmark_seed: int = 0  # seed of the benchmark's goals
    one_hot: bool = True  # whether observations of MT with several environments end with the environment's code
    horizon: int = LONGEST_EPISODE  # number of steps per episode, at most 500
    num_workers: int | None = None  # number of worker processes; None: one per CPU
    max_crashes: int = 5  # number of successive crashes of a row, without a complete episode, that stop training
    step_timeout: float | None = 60.0  # seconds that one row's step or start may take; None: no limit
    num_episodes: int = 10  # number of episodes per trial

    name = "metaworld"

    def __post_init__(self) -> None:
        literals(self)
        at_least(self, 1, "num_episodes", "max_crashes", "num_workers")
        at_least(self, 1, "horizon", at_most=LONGEST_EPISODE)
        at_least(self, 0, "benchmark_seed")
        positive(self, "step_timeout")
        names = (*_NUM_ENVS, *_CUSTOM)
        if self.benchmark not in names and not _OF_ONE.fullmatch(self.benchmark):
            allowed = f"ML1-<env> or MT1-<env> with a name such as reach-v3, or one of {', '.join(names)}"
            raise ValueError(f"benchmark is {self.benchmark!r}; must be {allowed}")
        wants = {"train_envs": self.benchmark in _CUSTOM, "test_envs": self.benchmark == "ML-custom"}
        for field, wanted in wants.items():
            value = getattr(self, field)
            if bool(value) != wanted:
                what = "name environments" if wanted else "be empty"
                raise ValueError(f"{field} is {value}; must {what} for benchmark {self.benchmark}")
            if len(set(value)) < len(value):
                raise ValueError(f"{field} is {value}; must name each environment once")
        if both := sorted(set(self.train_envs) & set(self.test_envs)):
            raise ValueError(f"test_envs has {both[0]!r}, which train_envs has too; must have other environments")

    @property
    def hides_goal(self) -> bool:
        return self.benchmark.startswith("ML")

    @property
    def code_size(self) -> int:
        """How many numbers the one-hot code of the environment has; 0 without a code."""
        num_envs = _NUM_ENVS.get(self.benchmark, len(self.train_envs))
        return num_envs if self.one_hot and not self.hides_goal and num_envs > 1 else 0

    @property
    def observation_space(self) -> spaces.Box:
        return spaces.Box(-np.inf, np.inf, (OBSERVATION_SIZE + self.code_size,), np.float32)

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (4,), np.float32)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of what is measured in each episode; they tell the version of the reward that was paid."""
        return tuple(f"{name}_reward_{self.reward_version}" for name in worker.METRICS)

    @property
    def tasks(self) -> Benchmark:
        """The benchmark's environments and tasks, which the package is asked for once.

        Raises:
            ValueError: for an environment that the package does not have.
            UserError: when there is no interpreter that has the package.
        """
        return _benchmark(find_python(), self.benchmark, self.train_envs, self.test_envs, self.benchmark_seed)

    def versions(self) -> dict[str, str]:
        """The versions of the interpreter that has the package, and of its packages; raises what `tasks` does."""
        return {name: value for name, value in self.tasks.versions.items() if name != "protocol"}

    def groups(self, tasks: MetaworldTasks) -> list[str]:
        """The name of each task's environment."""
        return [self.tasks.env_names[index] for index in tasks.env.tolist()]

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> MetaworldTasks:
        """Tasks with the environments in equal numbers, as far as that goes, and as many different goals as there are.

        Raises:
            ValueError: for an unknown split, or an environment that the package does not have.
            UserError: when there is no interpreter that has the package.
        """
        check_split(self.name, split, has_ood=False, reason="Meta-World defines none")
        known = self.tasks
        goals = known.train if split == "train" or not self.hides_goal else known.test
        places = _in_turn(len(goals), num_tasks, generator)
        numbers = torch.zeros_like(places)
        for place in range(len(goals)):
            chosen = places == place
            numbers[chosen] = _in_turn(len(goals[place].vectors), int(chosen.sum()), generator)
        vectors = torch.zeros(num_tasks, known.longest_vector, dtype=torch.float64)
        for task, (place, number) in enumerate(zip(places.tolist(), numbers.tolist(), strict=True)):
            vector = goals[place].vectors[number]
            vectors[task, : len(vector)] = torch.from_numpy(vector)
        envs = torch.tensor([each.env for each in goals])[places]
        return MetaworldTasks(envs, numbers, vectors).to(generator.device)

    def make_env(self, num_rows: int, generator: torch.Generator) -> MetaworldEnv:
        """`num_rows` rows, whose tensors are on the generator's device.

        Raises:
            UserError: when there is no interpreter that has the package, or a worker process does not start.
        """
        names = self.metric_names
        probed = Probed(self.observation_space, self.action_space, self.horizon, SECONDS_PER_STEP, names, True)
        return MetaworldEnv(
            self.name,
            probed,
            num_rows,
            available_cpus() if self.num_workers is None else self.num_workers,
            self._hold,
            self._values,
            self.max_crashes,
            names,
            generator,
        )

    def _hold(self, num_rows: int) -> RowsHolder:
        """Start a worker process."""
        settings = (list(self.tasks.env_names), self.reward_version, self.hides_goal, self.code_size > 0, self.horizon)
        return MetaworldProcess(find_python()).hold(num_rows, settings, self.step_timeout)

    def _values(self, tasks: MetaworldTasks) -> list[Values]:
        """Each task as a worker is told it."""
        known = self.tasks
        return [
            {"env": known.env_names[env], "vector": vector[: known.vector_sizes[env]]}
            for env, vector in zip(tasks.env.tolist(), tasks.vector.tolist(), strict=True)
        ]

    def bounds(self, tasks: Record, num_episodes: int) -> dict[str, Tensor]:
        """Empty: nobody knows."""
        return {}


def _in_turn(num_items: int, count: int, generator: torch.Generator) -> Tensor:
    """Indices [count] of items in random orders, one order after another: none comes again before all have come."""
    device = generator.device
    orders = [torch.randperm(num_items, generator=generator, device=device) for _ in range(-(-count // num_items))]
    return torch.cat(orders)[:count].cpu() if orders else torch.zeros(0, dtype=torch.int64)


@cache
def _benchmark(
    python: Path, name: str, train_envs: tuple[str, ...], test_envs: tuple[str, ...], seed: int
) -> Benchmark:
    try:
        process = MetaworldProcess(python)
    except WorkerDied as death:
        raise CrashedTooOften(f"metaworld: {death}") from death
    try:
        train, test = process.call("benchmark_tasks", name, train_envs, test_envs, seed)
    except Failed as failure:
        raise ValueError(str(failure)) from failure
    except WorkerDied as death:
        raise CrashedTooOften(f"metaworld: {death}") from death
    finally:
        process.stop()
    names = tuple(dict.fromkeys(env for env, _ in (*train, *test)))
    sizes = {env: len(vectors[0]) for env, vectors in (*train, *test)}
    vector_sizes = tuple(sizes[env] for env in names)
    return Benchmark(names, _goals(train, names), _goals(test, names), vector_sizes, process.versions)


def _goals(split: list[Any], names: tuple[str, ...]) -> tuple[Goals, ...]:
    return tuple(Goals(names.index(env), np.array(vectors)) for env, vectors in split)
