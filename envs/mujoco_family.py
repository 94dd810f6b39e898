"""A robot of one's own as a task family: an MJCF file, three torch functions and a range for each parameter.

    MujocoFamily(
        mjcf="crane.xml",
        observe=lambda physics, task: torch.cat([physics.qpos, physics.qvel], 1),
        reward=lambda physics, action, task: -(physics.position("trolley") - task.target).abs(),
        tasks={"target": Uniform(-1, 1), "body_mass": LogUniform(1 / 2, 2, bodies=["load"])},
        horizon=100,
    )

The functions see B simulations at once, and are the same on every engine; they must treat rows alike and keep nothing
from call to call. Mistakes are found when the family is made, by trying the functions on a few rows at rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from envs.locomotion.mujoco_env import MujocoEnv
from envs.samplers import Sampler
from envs.simulators import make_physics
from envs.simulators.model import load_model
from envs.simulators.parameters import ModelParameter, action_limits, joint_places, model_parameter, physics
from envs.torch_env import check_at_least, check_split
from metarl.protocols import Split
from metarl.records import Record

HUGE = 1e10  # of a coordinate: what MuJoCo takes for a simulation that diverges
_ROWS_TO_TRY = 7  # unlikely to be the number of anything else, so that mixed-up axes show


@dataclass(frozen=True)
class BatchedPhysics:
    """B simulations of one model at one moment."""

    qpos: Tensor  # [B, nq] positions, in MuJoCo's order and units
    qvel: Tensor  # [B, nv] velocities
    qpos_before: Tensor  # [B, nq] positions before the step that led here; in `observe` and `terminated`, `qpos`
    dt: float  # seconds of a step
    joints: Mapping[str, tuple[slice, slice]] = field(repr=False)  # by name: where in qpos and in qvel

    def position(self, joint: str) -> Tensor:
        """A joint's position: [B] m or rad for a slide or a hinge, [B, 4] for a ball, [B, 7] for a free joint.

        Raises:
            ValueError: for a joint that the model lacks.
        """
        return _squeezed(self.qpos[:, self._place(joint)[0]])

    def velocity(self, joint: str) -> Tensor:
        """A joint's velocity: [B] m/s or rad/s, [B, 3] for a ball, [B, 6] for a free joint.

        Raises:
            ValueError: for a joint that the model lacks.
        """
        return _squeezed(self.qvel[:, self._place(joint)[1]])

    def _place(self, joint: str) -> tuple[slice, slice]:
        if joint not in self.joints:
            raise ValueError(f"the model has no joint {joint!r}: it has {', '.join(map(repr, self.joints))}")
        return self.joints[joint]


@dataclass(frozen=True)
class MujocoFamily:
    """Tasks of one robot that differ in physics, in what is asked, or in both.

    A name in `tasks` that is a field of MuJoCo's model, such as "body_mass" or "opt.gravity", changes the model; see
    `envs.simulators.parameters`. Any other name is what the functions make of it: they find it, [B] or [B, elements],
    as an attribute of `task`, where dots are underscores ("opt.gravity" is `task.opt_gravity`).
    """

    mjcf: str | Path
    observe: Callable[[BatchedPhysics, Any], Tensor]  # (physics, task) -> [B, O]
    reward: Callable[[BatchedPhysics, Tensor, Any], Tensor]  # (physics, action [B, A], task) -> [B]
    tasks: Mapping[str, Any]  # a `Sampler` by the parameter's name
    horizon: int
    terminated: Callable[[BatchedPhysics, Any], Tensor] | None = None  # (physics, task) -> [B] bool
    frame_skip: int = 1  # steps of the simulation to a step of the agent
    num_episodes: int = 2
    goal: Callable[[Any], Tensor] | None = None  # (task) -> [B, 3], where pictures show a ball
    name: str = "own_robot"

    def __post_init__(self) -> None:
        counts = {"horizon": self.horizon, "frame_skip": self.frame_skip, "num_episodes": self.num_episodes}
        check_at_least("MujocoFamily", 1, **counts)
        for name in ("observe", "reward", "terminated"):
            if not callable(getattr(self, name)) and not (name == "terminated" and self.terminated is None):
                raise ValueError(f"{name} of MujocoFamily is {getattr(self, name)!r}: allowed is a function")
        if not self.tasks:
            raise ValueError("tasks of MujocoFamily is empty: a task needs a parameter, such as target=Uniform(0, 3)")
        for name, sampler in self.tasks.items():
            if not isinstance(sampler, Sampler):
                raise ValueError(f"task {name!r} is {sampler!r}: allowed are ranges such as Uniform(0, 3)")
        object.__setattr__(self, "mjcf", Path(self.mjcf))
        self._observation_space  # noqa: B018, compiles the model, looks up all names and tries all functions

    # What a family is

    @property
    def body(self) -> Path:
        return Path(self.mjcf)

    @property
    def observation_space(self) -> spaces.Box:
        return self._observation_space

    @property
    def action_space(self) -> spaces.Box:
        return self._action_space

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> Record:
        """Tasks with one value for each parameter, or for each of the elements that it changes.

        Raises:
            ValueError: for an unknown split, or "ood" where no parameter has values outside its range.
        """
        check_split(self.name, split)
        if split == "ood" and not any(sampler.has_ood for sampler in self.tasks.values()):
            raise ValueError(f"split of {self.name} is 'ood': allowed are 'train', 'test'; its tasks are all choices")
        values = {}
        for name, sampler in self.tasks.items():
            parameter = self._parameters[name]
            elements = () if parameter is None or parameter.num_values == 1 else (parameter.num_values,)
            values[_attribute(name)] = sampler.sample((num_tasks, *elements), split, generator)
        return self._record(**values)

    def in_training_range(self, tasks: Record) -> Tensor:
        """Which tasks training can draw: [N] bool."""
        inside = [
            sampler.contains(getattr(tasks, _attribute(name))).reshape(len(tasks), -1).all(1)
            for name, sampler in self.tasks.items()
        ]
        return torch.stack(inside).all(0)

    def make_env(self, num_rows: int, generator: torch.Generator) -> MujocoEnv[Any]:
        """`num_rows` simulations on the generator's device; raises what `make_physics` does."""
        return MujocoEnv(_Dynamics(self), make_physics(self.body, num_rows, generator.device), generator)

    def bounds(self, tasks: Record, num_episodes: int) -> dict[str, list[float]]:
        """Empty: nobody knows."""
        return {}

    # What it is made of

    @cached_property
    def _observation_space(self) -> spaces.Box:
        return spaces.Box(-float("inf"), float("inf"), (self._try(),))

    @cached_property
    def _action_space(self) -> spaces.Box:
        return spaces.Box(*action_limits(self._model))

    @cached_property
    def _model(self) -> Any:
        if not self.body.is_file():
            raise ValueError(f"mjcf of MujocoFamily is {str(self.mjcf)!r}: there is no such file")
        try:
            model = load_model(self.body)
            action_limits(model)
        except ValueError as error:
            raise ValueError(f"{self.body}: {' '.join(str(error).split())}") from error
        return model

    @cached_property
    def _parameters(self) -> dict[str, ModelParameter | None]:
        """What each parameter changes of the model; None for those that only the functions know."""
        return {name: model_parameter(self._model, name, sampler) for name, sampler in self.tasks.items()}

    @cached_property
    def _record(self) -> type[Any]:
        for name in self.tasks:
            if not _attribute(name).isidentifier():
                raise ValueError(f"task {name!r} is no name: allowed are letters, digits, underscores and dots")
        return _task_record(tuple(map(_attribute, self.tasks)))

    @cached_property
    def _joints(self) -> dict[str, tuple[slice, slice]]:
        return joint_places(self._model)

    @property
    def _dt(self) -> float:
        return float(self._model.opt.timestep) * self.frame_skip

    def _seen(self, qpos: Tensor, qvel: Tensor, qpos_before: Tensor) -> BatchedPhysics:
        return BatchedPhysics(qpos, qvel, qpos_before, self._dt, self._joints)

    def _try(self) -> int:
        """Call the functions on a few rows at rest; returns the size of an observation.

        Raises:
            ValueError: when one of them fails, or gives something of another shape or type than it must.
        """
        rows, model = _ROWS_TO_TRY, self._model
        qpos = torch.tensor(model.qpos0).repeat(rows, 1)
        seen = self._seen(qpos, torch.zeros(rows, model.nv, dtype=qpos.dtype), qpos.clone())
        task = self.sample(rows, "train", torch.Generator().manual_seed(0))
        action = torch.zeros(rows, model.nu)
        obs = self._call("observe", seen, task)
        if obs.ndim != 2 or len(obs) != rows or not obs.is_floating_point():
            raise ValueError(f"observe gives {_form(obs)} for {rows} rows: it must be floats of shape ({rows}, size)")
        _check_form("reward", self._call("reward", seen, action, task), rows, floats=True)
        if self.terminated is not None:
            _check_form("terminated", self._call("terminated", seen, task), rows, floats=False)
        return obs.shape[1]

    def _call(self, name: str, *arguments: Any) -> Tensor:
        try:
            value = getattr(self, name)(*arguments)
        except Exception as error:  # whatever the user's function raises
            raise ValueError(f"{name} fails: {type(error).__name__}: {error}") from error
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} gives {type(value).__name__}: it must be a tensor")
        _check_finite(name, value, arguments[-1])
        return value


class _Dynamics:
    """A family's functions in the form that `MujocoEnv` calls, for the tasks that one environment has at present."""

    def __init__(self, family: MujocoFamily) -> None:
        self.name, self.body = family.name, family.body
        self.frame_skip, self.horizon = family.frame_skip, family.horizon
        self.observation_space, self.action_space = family.observation_space, family.action_space
        self._family = family
        self._tasks: Any = None

    def physics(self, tasks: Any, nominal: Callable[[str], Tensor]) -> Mapping[str, Tensor]:
        self._tasks = tasks
        changed = [
            (parameter, getattr(tasks, _attribute(name)))
            for name, parameter in self._family._parameters.items()
            if parameter is not None
        ]
        return physics(changed, nominal)

    def observation(self, qpos: Tensor, qvel: Tensor) -> Tensor:
        obs = self._family.observe(self._family._seen(qpos, qvel, qpos), self._tasks)
        if obs.device.type == "cpu" and not bool(obs.sum().isfinite()):  # elsewhere, asking would wait for the device
            self._refuse(obs, qpos, qvel)
        return obs.to(torch.float32, copy=True)

    def reward(self, tasks: Any, qpos_before: Tensor, qpos: Tensor, qvel: Tensor, action: Tensor, dt: float) -> Tensor:
        return self._family.reward(self._family._seen(qpos, qvel, qpos_before), action, tasks).float()

    def terminated(self, qpos: Tensor, qvel: Tensor) -> Tensor | None:
        if self._family.terminated is None:
            return None
        return self._family.terminated(self._family._seen(qpos, qvel, qpos), self._tasks)

    def goal(self, tasks: Any) -> Tensor | None:
        return None if self._family.goal is None else self._family.goal(tasks)

    def _refuse(self, obs: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """
        Raises:
            FloatingPointError: for a row whose observation is not finite though its simulation is.
        """
        sound = torch.cat([qpos, qvel], 1).abs().amax(1) < HUGE
        bad = (~obs.isfinite().all(1) & sound).nonzero().flatten()
        if len(bad):
            row = int(bad[0])
            raise FloatingPointError(
                f"observation of row {row} is {obs[row].tolist()} at qpos {qpos[row].tolist()}, "
                f"qvel {qvel[row].tolist()}; its task is {_describe(self._tasks, row)}"
            )


@lru_cache
def _task_record(names: Sequence[str]) -> type[Any]:
    """A record with a tensor for each name; one class for equal names, as records are registered with torch."""
    return make_dataclass("OwnTasks", [(name, Tensor) for name in names], bases=(Record,), frozen=True)


def _attribute(name: str) -> str:
    return name.replace(".", "_")


def _squeezed(values: Tensor) -> Tensor:
    return values[:, 0] if values.shape[1] == 1 else values


def _form(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"


def _check_form(name: str, value: Tensor, rows: int, floats: bool) -> None:
    right = value.is_floating_point() if floats else value.dtype == torch.bool
    if value.shape != (rows,) or not right:
        kind = "floats" if floats else "bools"
        raise ValueError(f"{name} gives {_form(value)} for {rows} rows: it must be {kind} of shape ({rows},)")


def _check_finite(name: str, value: Tensor, task: Any) -> None:
    if value.is_floating_point() and not bool(value.isfinite().all()):
        row = int((~value.isfinite()).nonzero()[0, 0])
        raise ValueError(f"{name} is not finite for a robot at rest in the task {_describe(task, row)}")


def _describe(task: Any, row: int) -> str:
    return ", ".join(f"{name}={values[row].tolist()}" for name, values in vars(task).items())
