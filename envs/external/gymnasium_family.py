"""Any Gymnasium environment as a task family: its id, a range for each parameter, and how to set them.

    GymnasiumFamily("Pendulum-v1", tasks={"g": Uniform(5, 15), "m": LogUniform(1 / 2, 2)})

Rows run in worker processes, `envs.external`. Without a word on `apply`, a parameter is the attribute of its name of
the unwrapped environment, dots leading inside ("model.dt"); `apply={"gravity": "g"}` gives it another name; a function
`apply(env, task)` does anything else, before every reset: `env` is the unwrapped environment, `task` a dict of numbers.

1. Observations are flattened to float32. Actions are a Discrete, or a Box of floats; other spaces are flattened to one:
   one number per choice, the largest of which is chosen; integers are rounded.
2. The time limit is Gymnasium's TimeLimit; an environment that truncates by itself may do so earlier.
3. Numbers in the `info` of a step, such as "is_success", are metrics: means over the steps of an episode that have
   them.
4. Spaces and the global streams of numpy, Python and torch are seeded for each row. An environment with a generator of
   its own must seed it in `reset`, or runs cannot be repeated.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import gymnasium
import torch
from gymnasium import spaces
from torch import Tensor

from envs.external.effects import check_effects
from envs.external.portable import check_portable
from envs.external.rows import Apply, Maker, Probed, Rows, probe
from envs.external.vector_env import ThirdPartyEnv, Values, VisibleThirdPartyEnv
from envs.external.workers import InProcess, RowsHolder, Worker, WorkerDied
from envs.samplers import all_inside, attribute, check_sampler_split, check_samplers, task_record
from envs.simulators.cpu_count import available_cpus
from metarl.checks import at_least, positive
from metarl.protocols import Split
from metarl.records import Record

logger = logging.getLogger(__name__)

_TASKS_TO_COMPARE = 16  # from which two that differ are chosen


@dataclass(frozen=True)
class GymnasiumFamily:
    """Tasks of one third-party environment that differ in some of its numbers.

    Workers that crash are started again, and cost the row its episode; see `ThirdPartyEnv`.
    """

    env: str | Callable[[], gymnasium.Env[Any, Any]]  # id of the environment, or a function that makes it
    tasks: Mapping[str, Any]  # samplers by parameter name
    apply: Apply | Mapping[str, str] | None = None  # setter of parameters: function or attribute names; None: by name
    options: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments of `gymnasium.make`
    horizon: int = 0  # number of steps per episode; 0: the registered time limit
    num_workers: int | None = None  # number of worker processes; None: one per CPU; 0: all rows in this process
    max_crashes: int = 5  # number of successive crashes of a row, without a complete episode, that stop training
    step_timeout: float | None = 60.0  # seconds that one row's step or start may take in a worker; None: no limit
    metrics: tuple[str, ...] | None = None  # numbers of a step's `info` to report; None: all that the first step has
    flatten_images: bool = False  # whether images among the observations become one long vector
    unchecked: tuple[str, ...] = ()  # parameters that are not tried for an effect, because it is rare or late
    num_episodes: int = 2  # number of episodes per trial
    name: str = ""  # name of the family; "": derived from the id

    def __post_init__(self) -> None:
        at_least(self, 1, "num_episodes", "max_crashes")
        at_least(self, 0, "horizon", "num_workers")
        positive(self, "step_timeout")
        check_samplers(self.tasks)
        for name, sampler in self.tasks.items():
            if any(getattr(sampler, kind, ()) for kind in ("bodies", "joints", "geoms", "actuators")):
                raise ValueError(f"task {name!r} selects parts of a robot, which GymnasiumFamily does not have")
        if isinstance(self.apply, Mapping) and (unknown := sorted(set(self.apply) - set(self.tasks))):
            raise ValueError(f"apply has {unknown[0]!r}; must be one of {', '.join(self.tasks)}")
        if unknown := sorted(set(self.unchecked) - set(self.tasks)):
            raise ValueError(f"unchecked has {unknown[0]!r}; must be among {', '.join(self.tasks)}")
        object.__setattr__(self, "name", self.name or _name_of(self.env))
        object.__setattr__(self, "horizon", self.probed.horizon)
        if not self.probed.repeats:
            _warn(
                f"{self._described}: two starts from one seed differ, so runs with one seed will: "
                "draw from self.np_random in reset and step"
            )
        if self.num_workers != 0:
            try:
                check_portable(self.maker)
            except ValueError as error:
                raise ValueError(f"{self._described}: {error}") from error
        self._check_effects()

    @cached_property
    def probed(self) -> Probed:
        """What an environment tells of itself, made and tried here once.

        Raises:
            ValueError: when it cannot be made, given a task, reset or stepped, or its spaces do not fit.
        """
        example = self.sample(1, "train", torch.Generator().manual_seed(0))
        task = {name: float(getattr(example, attribute(name))) for name in self.tasks}
        try:
            maker = Maker(self.env, self.options, self.horizon, self.apply)
            return probe(maker, task, self.flatten_images, self.step_timeout)
        except ValueError as error:
            raise ValueError(f"{self._described}: {error}") from error

    @property
    def _described(self) -> str:
        return self.env if isinstance(self.env, str) else self.name

    def _check_effects(self) -> None:
        """Check the effects of the parameters.

        Raises:
            ValueError: for a parameter without its whole effect.
        """
        tasks = self.sample(_TASKS_TO_COMPARE, "train", torch.Generator().manual_seed(0))
        values = {name: getattr(tasks, attribute(name)).tolist() for name in self.tasks}
        names = [name for name in self.tasks if name not in self.unchecked]
        try:
            untold = check_effects(self.maker, values, names, self.horizon, self.step_timeout)
        except ValueError as error:
            raise ValueError(f"{self._described}: {error}") from error
        for name in untold:
            _warn(f"{self.name}: whether task {name!r} has an effect cannot be told, as all random steps are the same")

    @property
    def maker(self) -> Maker:
        return Maker(self.env, self.options, self.horizon, self.apply, visible=self.probed.seconds_per_step is not None)

    @property
    def observation_space(self) -> spaces.Box:
        return self.probed.observation_space

    @property
    def action_space(self) -> spaces.Box | spaces.Discrete:
        return self.probed.action_space

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> Record:
        """Tasks with one number for each parameter.

        Raises:
            ValueError: for an unknown split, or "ood" where no parameter has values outside its range.
        """
        check_sampler_split(self.name, split, self.tasks)
        values = {name: sampler.sample((num_tasks,), split, generator) for name, sampler in self.tasks.items()}
        return task_record(tuple(map(attribute, values)))(**{attribute(name): values[name] for name in values})

    def in_training_range(self, tasks: Record) -> Tensor:
        """Which tasks training can draw: [N] bool."""
        return all_inside(tasks, self.tasks)

    def make_env(self, num_rows: int, generator: torch.Generator) -> ThirdPartyEnv:
        """`num_rows` environments, whose tensors are on the generator's device.

        Raises:
            CrashedTooOften: when a worker process does not start.
        """
        num_workers = available_cpus() if self.num_workers is None else self.num_workers
        kind = ThirdPartyEnv if self.probed.seconds_per_step is None else VisibleThirdPartyEnv
        return kind(
            self.name,
            self.probed,
            num_rows,
            num_workers,
            functools.partial(self._hold, self.maker),
            self._values,
            self.max_crashes,
            self.metrics,
            generator,
        )

    def _hold(self, maker: Maker, num_rows: int) -> RowsHolder:
        """Rows in this process or in a worker.

        Raises:
            WorkerDied: when a worker process does not start.
        """
        probed = self.probed
        names = probed.metric_names if self.metrics is None else self.metrics
        make_rows = functools.partial(
            Rows,
            maker,
            num_rows=num_rows,
            observation_space=probed.observation_space,
            action_space=probed.action_space,
            metric_names=names,
        )
        if self.num_workers == 0:
            return InProcess(make_rows)
        try:
            return Worker(make_rows, self.step_timeout)
        except WorkerDied as death:
            raise WorkerDied(f"{death}; num_workers=0 needs no worker process", None) from death

    def _values(self, tasks: Any) -> list[Values]:
        """Each task by the parameters' names."""
        columns = {name: getattr(tasks, attribute(name)).tolist() for name in self.tasks}
        return [{name: columns[name][index] for name in columns} for index in range(len(tasks))]

    def bounds(self, tasks: Record, num_episodes: int) -> dict[str, Tensor]:
        """Empty: nobody knows."""
        return {}


@cache
def _warn(text: str) -> None:
    """Warn once; a family is made again whenever one of its settings changes."""
    logger.warning(text)


def _name_of(env: Any) -> str:
    """Such as "half_cheetah" of "HalfCheetah-v5"; of a function, its own."""
    if not isinstance(env, str):
        return getattr(env, "__name__", "gymnasium").strip("<>")
    word = env.split("/")[-1].split(":")[-1]
    word = re.sub(r"-v\d+$", "", word)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word).replace("-", "_").lower()
