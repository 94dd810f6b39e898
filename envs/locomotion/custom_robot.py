"""A custom robot as a task family: an MJCF file, a few torch functions and a range per parameter.

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

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from envs.locomotion.contacts import FIELD
from envs.locomotion.mujoco_env import MujocoEnv
from envs.locomotion.start import StartNoise
from envs.samplers import all_inside, attribute, check_sampler_split, check_samplers, task_record
from envs.simulators import make_physics
from envs.simulators.batched import BatchedPhysics, Names, RestingState
from envs.simulators.model import load_model
from envs.simulators.parameters import ModelParameter, action_limits, model_parameter, physics
from envs.simulators.state import State
from metarl.checks import at_least
from metarl.protocols import Split
from metarl.records import Record

HUGE = 1e10  # of a coordinate: what MuJoCo takes for a simulation that diverges
_ROWS_TO_TRY = 7  # unlikely to be the number of anything else, so that mixed-up axes show

Observe = Callable[[BatchedPhysics, Any], Tensor]  # (physics, task) -> [B, O]; terminated -> [B] bool
Reward = Callable[[BatchedPhysics, Tensor, Any], Tensor]  # (physics, action [B, A], task) -> [B]; metrics likewise


@dataclass(frozen=True)
class MujocoFamily:
    """Tasks of one robot that differ in physics, in what is asked, or in both.

    A name in `tasks` that is a field of MuJoCo's model, such as "body_mass" or "opt.gravity", changes the model; see
    `envs.simulators.parameters`. Any other name is what the functions make of it: they find it, [B] or [B, elements],
    as an attribute of `task`, where dots are underscores ("opt.gravity" is `task.opt_gravity`).
    """

    mjcf: str | Path  # path of the MJCF file
    observe: Observe  # function (physics, task) that returns observations [B, O]
    reward: Reward  # function (physics, action, task) that returns rewards [B]
    tasks: Mapping[str, Any]  # samplers by parameter name
    horizon: int  # number of steps per episode
    terminated: Observe | None = None  # function (physics, task) that returns the end of episodes [B]; None: no end
    metrics: Mapping[str, Reward] = field(default_factory=dict)  # functions like `reward` for further metrics, by name
    goal: Callable[[Any], Tensor] | None = None  # function (task) that returns a ball's position in videos, [B, 3]
    frame_skip: int = 1  # simulation steps per environment step
    start_noise: float = 0.1  # half-width of the uniform noise on the initial positions and velocities
    num_episodes: int = 2  # number of episodes per trial
    name: str = "own_robot"  # name of the family

    def __post_init__(self) -> None:
        at_least(self, 1, "horizon", "frame_skip", "num_episodes")
        at_least(self, 0, "start_noise")
        functions = {"observe": self.observe, "reward": self.reward, **self.metrics}
        functions |= {name: getattr(self, name) for name in ("terminated", "goal") if getattr(self, name) is not None}
        for name, function in functions.items():
            if not callable(function):
                raise ValueError(f"{name} is {function!r}; must be a function")
        check_samplers(self.tasks)
        object.__setattr__(self, "mjcf", Path(self.mjcf))
        self.dynamics  # noqa: B018, compiles the model, looks up all names and tries all functions

    @property
    def body(self) -> Path:
        return Path(self.mjcf)

    @property
    def observation_space(self) -> spaces.Box:
        return self.dynamics.observation_space

    @property
    def action_space(self) -> spaces.Box:
        return self.dynamics.action_space

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> Record:
        """Tasks with one value for each parameter, or for each of the elements that it changes.

        Raises:
            ValueError: for an unknown split, or "ood" where no parameter has values outside its range.
        """
        check_sampler_split(self.name, split, self.tasks)
        values = {}
        for name, sampler in self.tasks.items():
            parameter = self.parameters[name]
            elements = () if parameter is None or parameter.num_values == 1 else (parameter.num_values,)
            values[attribute(name)] = sampler.sample((num_tasks, *elements), split, generator)
        return task_record(tuple(values))(**values)

    def in_training_range(self, tasks: Record) -> Tensor:
        """Which tasks training can draw: [N] bool."""
        return all_inside(tasks, self.tasks)

    def make_env(self, num_rows: int, generator: torch.Generator) -> MujocoEnv[Any]:
        """`num_rows` simulations on the generator's device; raises what `make_physics` does."""
        contact_forces = FIELD in self.dynamics.fields
        physics = make_physics(self.body, num_rows, generator.device, contact_forces=contact_forces)
        return MujocoEnv(self.dynamics, physics, generator)

    def bounds(self, tasks: Record, num_episodes: int) -> dict[str, Tensor]:
        """Empty: nobody knows."""
        return {}

    @cached_property
    def model(self) -> Any:
        """The compiled model.

        Raises:
            ValueError: when there is no such file, MuJoCo refuses it, or an actuator has no limits.
        """
        if not self.body.is_file():
            raise ValueError(f"mjcf is {str(self.mjcf)!r}; there is no such file")
        try:
            model = load_model(self.body)
            action_limits(model)
        except ValueError as error:
            raise ValueError(f"{self.body}: {' '.join(str(error).split())}") from error
        return model

    @cached_property
    def parameters(self) -> Mapping[str, ModelParameter | None]:
        """What each parameter changes of the model; None for those that only the functions know."""
        return {name: model_parameter(self.model, name, sampler) for name, sampler in self.tasks.items()}

    @cached_property
    def dynamics(self) -> CustomDynamics:
        """The family's functions in the form that `MujocoEnv` calls."""
        return CustomDynamics(self)


class CustomDynamics:
    """A family's functions as `envs.locomotion.mujoco_env.Locomotion`, after they were tried on a few rows at rest."""

    def __init__(self, family: MujocoFamily) -> None:
        """Try the family's functions.

        Raises:
            ValueError: when a function fails, or returns a wrong shape or type.
        """
        self.name, self.body = family.name, family.body
        self.frame_skip, self.horizon = family.frame_skip, family.horizon
        self.metric_names = tuple(family.metrics)
        self.action_space = spaces.Box(*action_limits(family.model))
        self._family = family
        self._dt = float(family.model.opt.timestep) * family.frame_skip
        self._names = Names(family.model)
        now, before = RestingState(family.model, _ROWS_TO_TRY), RestingState(family.model, _ROWS_TO_TRY)
        size = self._try(now, before)
        self.fields = tuple(sorted(now.used - {"qpos", "qvel"}))  # what the functions have asked for
        self.fields_before = tuple(sorted(before.used))
        self.observation_space = spaces.Box(-float("inf"), float("inf"), (size,))

    def physics(self, tasks: Any, nominal: Callable[[str], Tensor]) -> Mapping[str, Tensor]:
        parameters = self._family.parameters.items()
        changed = [(parameter, getattr(tasks, attribute(name))) for name, parameter in parameters if parameter]
        return physics(changed, nominal)

    def initial_state(
        self, tasks: Any, qpos: Tensor, qvel: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return StartNoise(self._family.start_noise).add(qpos, qvel, generator)

    def observation(self, state: State, tasks: Any) -> Tensor:
        obs = self._family.observe(self._seen(state), tasks)
        if obs.device.type == "cpu" and not bool(obs.sum().isfinite()):  # elsewhere, asking would wait for the device
            _refuse(obs, state, tasks)
        return obs.to(torch.float32, copy=True)

    def reward(self, before: State, after: State, action: Tensor, tasks: Any, dt: float) -> Tensor:
        return self._family.reward(self._seen(after, before), action, tasks).float()

    def metrics(self, before: State, after: State, action: Tensor, tasks: Any, dt: float) -> Tensor | None:
        if not self.metric_names:
            return None
        seen = self._seen(after, before)
        return torch.stack([measure(seen, action, tasks).float() for measure in self._family.metrics.values()], dim=1)

    def terminated(self, state: State, tasks: Any) -> Tensor | None:
        return None if self._family.terminated is None else self._family.terminated(self._seen(state), tasks)

    def goal(self, tasks: Any) -> Tensor | None:
        return None if self._family.goal is None else self._family.goal(tasks)

    def _seen(self, state: Any, before: Any = None) -> BatchedPhysics:
        return BatchedPhysics(state, before, self._dt, self._names)

    def _try(self, now: RestingState, before: RestingState) -> int:
        """Call every function on rows at rest; returns the size of an observation."""
        family, rows = self._family, _ROWS_TO_TRY
        task = family.sample(rows, "train", torch.Generator().manual_seed(0))
        action = torch.zeros(rows, *self.action_space.shape)
        obs = _called("observe", family.observe, self._seen(now), task)
        if obs.ndim != 2 or len(obs) != rows or not obs.is_floating_point():
            raise ValueError(f"observe gives {_form(obs)} for {rows} rows: it must be floats of shape ({rows}, size)")
        for name, function in {"reward": family.reward, **family.metrics}.items():
            value = _called(name, function, self._seen(now, before), action, task)
            if value.shape != (rows,) or not value.is_floating_point():
                raise ValueError(f"{name} gives {_form(value)} for {rows} rows: it must be floats of shape ({rows},)")
        if family.terminated is not None:
            value = _called("terminated", family.terminated, self._seen(now), task)
            if value.shape != (rows,) or value.dtype != torch.bool:
                raise ValueError(
                    f"terminated gives {_form(value)} for {rows} rows: it must be bools of shape ({rows},)"
                )
        if family.goal is not None:
            value = _called("goal", family.goal, task)
            if value.shape != (rows, 3):
                raise ValueError(f"goal gives {_form(value)} for {rows} rows: it must have the shape ({rows}, 3)")
        return obs.shape[1]


def _called(name: str, function: Callable[..., Any], *arguments: Any) -> Tensor:
    try:
        value = function(*arguments)
    except Exception as error:  # whatever the user's function raises
        raise ValueError(f"{name} fails: {type(error).__name__}: {error}") from error
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} gives {type(value).__name__}: it must be a tensor")
    if value.is_floating_point() and not bool(value.isfinite().all()):
        row = int((~value.isfinite()).nonzero()[0, 0])
        raise ValueError(f"{name} is not finite for a robot at rest in the task {_describe(arguments[-1], row)}")
    return value


def _refuse(obs: Tensor, state: State, tasks: Any) -> None:
    """Check that observations are finite.

    Raises:
        FloatingPointError: for a row whose observation is not finite though its simulation is.
    """
    sound = torch.cat([state.qpos, state.qvel], 1).abs().amax(1) < HUGE
    bad = (~obs.isfinite().all(1) & sound).nonzero().flatten()
    if len(bad):
        row = int(bad[0])
        place = f"qpos {state.qpos[row].tolist()}, qvel {state.qvel[row].tolist()}"
        task = _describe(tasks, row)
        raise FloatingPointError(f"observation of row {row} is {obs[row].tolist()} at {place}; its task is {task}")


def _form(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"


def _describe(task: Any, row: int) -> str:
    return ", ".join(f"{name}={values[row].tolist()}" for name, values in vars(task).items())
