"""A custom robot as a task family: an MJCF file, a few torch functions and a range per parameter.

    MujocoFamily(
        mjcf="crane.xml",
        observe=lambda physics, task: torch.cat([physics.qpos, physics.qvel], 1),
        reward=lambda physics, action, task: -(physics.position("trolley") - task.target).abs(),
        tasks={"target": Uniform(-1, 1), "body_mass": LogUniform(1 / 2, 2, bodies=["load"])},
        horizon=100,
    )

The functions see B simulations at once, and are the same on every engine; they must treat rows alike and keep nothing
from call to call. Mistakes are found when the family is made: the functions are tried on a few rows at rest, and each
parameter of the model on two simulations that differ in nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor

from envs.locomotion.contacts import FIELD
from envs.locomotion.effects import check_effects, noting
from envs.locomotion.mujoco_env import MujocoEnv
from envs.locomotion.reward_terms import Term, part_names, reasons_of, terms_of
from envs.locomotion.start import Starts, check_values, has_home, noise_by_joint
from envs.samplers import all_inside, attribute, check_draws, check_sampler_split, check_samplers, task_record
from envs.simulators import INPUTS, Engine, Physics, make_physics
from envs.simulators.actuator_parameters import half_servos
from envs.simulators.batched import BatchedPhysics, Names, RestingState
from envs.simulators.disturbed import DisturbedPhysics
from envs.simulators.parameters import action_limits, model_parameter, near, physics
from envs.simulators.robot_fields import AT_RANDOM_TIMES, DISTURBANCES, check_needs
from envs.simulators.robot_model import robot_model
from envs.simulators.state import State
from envs.simulators.targets import ModelParameter
from envs.simulators.terrain import terrain_of
from envs.simulators.timed_contacts import AIR_TIME, TimedContacts
from metarl.checks import at_least
from metarl.protocols import Split
from metarl.records import Record

logger = logging.getLogger(__name__)

HUGE = 1e10  # of a coordinate: what MuJoCo takes for a simulation that diverges
_ROWS_TO_TRY = 7  # unlikely to be the number of anything else, so that mixed-up axes show
_TASKS_TO_COMPARE = 16  # from which two that differ are chosen

Observe = Callable[[BatchedPhysics, Any], Tensor]  # (physics, task) -> [B, O]; terminated -> [B] bool
Measure = Callable[[BatchedPhysics, Tensor, Any], Tensor]  # (physics, action [B, A], task) -> [B]
Act = Callable[[BatchedPhysics, Tensor, Any], Tensor | Mapping[str, Tensor]]  # (physics, action, task) -> see `act`


@dataclass(frozen=True)
class MujocoFamily:
    """Tasks of one robot that differ in physics, in what is asked, or in both.

    A name in `tasks` that is a field of MuJoCo's model, such as "body_mass" or "opt.gravity", changes the model, and so
    does one of ours, such as "payload" or "push"; see `envs.simulators.parameters`. Any other name is what the
    functions make of it: they find it, [B] or [B, elements], as an attribute of `task`, where dots are underscores
    ("opt.gravity" is `task.opt_gravity`).

    Of a reward of named terms, the sum of each over an episode is measured, and of named reasons which of them ended
    it; see `envs.locomotion.reward_terms`. What `privileged` gives is for critics alone; see `metarl.rl.privileged`.

    Episodes start where the file's joints are at rest, in a keyframe of the file (`start="home"`), with joints at given
    positions (`start={"*_knee": -1.5}`) or where a function of the task says: positions [B, nq], or values [B, ...] by
    the names "qpos", "qvel", "act", "ctrl", "mocap_pos" and "mocap_quat". An action is a control for each actuator.
    With `act`, it is `num_actions` numbers from -1 to 1, of which `act` makes controls [B, nu], or values [B, ...] by
    the names "ctrl", "mocap_pos" and "mocap_quat".
    """

    mjcf: str | Path  # path of the MJCF or URDF file
    observe: Observe  # function (physics, task) that returns observations [B, O]
    # function (physics, action, task) that returns rewards [B]; or pairs (weight, function) by the names of terms
    reward: Any
    tasks: Mapping[str, Any]  # samplers by parameter name
    horizon: int  # number of steps per episode
    # function (physics, task) that returns the end of episodes [B], or functions by the names of reasons; None: no end
    terminated: Any = None
    metrics: Mapping[str, Measure] = field(default_factory=dict)  # functions like `reward` for further metrics, by name
    privileged: Observe | None = None  # function (physics, task) that returns [B, P] for critics alone, in training
    goal: Callable[[Any], Tensor] | None = None  # function (task) that returns a ball's position in videos, [B, 3]
    frame_skip: int = 1  # simulation steps per environment step
    # name of a keyframe, positions by joint, or function (task) that returns the start; "" or "qpos0": the joints' zero
    start: Any = ""
    start_noise: float = 0.1  # half-width of the uniform noise on the initial positions and velocities
    joint_noise: Mapping[str, float] = field(default_factory=dict)  # start noise of single joints, by name
    act: Act | None = None  # function (physics, action, task) that returns controls [B, nu] for actions in [-1, 1]
    num_actions: int = 0  # size of an action that `act` takes; 0: one number per actuator
    unchecked: tuple[str, ...] = ()  # parameters that are not tried for an effect, because it is rare or late
    # servos and motors to add, by joint or by a pattern of joints
    actuators: Mapping[str, Any] = field(default_factory=dict)
    free_base: bool = False  # whether a base that the file fixes to the world moves freely, above a floor
    num_episodes: int = 2  # number of episodes per trial
    name: str = "own_robot"  # name of the family

    engines: ClassVar[tuple[Engine, ...]] = ("mujoco", "mujoco_warp")  # engines that can simulate it

    def __post_init__(self) -> None:
        at_least(self, 1, "horizon", "frame_skip", "num_episodes")
        at_least(self, 0, "start_noise", "num_actions")
        object.__setattr__(self, "reward", terms_of(self.reward))
        object.__setattr__(self, "terminated", reasons_of(self.terminated))
        functions = {"observe": self.observe, **self.metrics}
        optional = ("privileged", "goal", "act")
        functions |= {name: getattr(self, name) for name in optional if getattr(self, name) is not None}
        for name, function in functions.items():
            if not callable(function):
                raise ValueError(f"{name} is {function!r}; must be a function")
        if self.num_actions and self.act is None:
            raise ValueError(f"num_actions is {self.num_actions}; must be 0 without act, which makes controls of them")
        if taken := sorted(set(self.metrics) & set(part_names(_named(self.reward), _named(self.terminated)))):
            raise ValueError(f"metrics has {taken[0]!r}, which is measured of the reward or of the ends; rename it")
        check_samplers(self.tasks)
        if unknown := sorted(set(self.unchecked) - set(self.tasks)):
            raise ValueError(f"unchecked has {unknown[0]!r}; must be among {', '.join(self.tasks)}")
        object.__setattr__(self, "mjcf", Path(self.mjcf))
        self.dynamics  # noqa: B018, compiles the model, looks up all names and tries all functions
        self._check_parameters()

    @property
    def body(self) -> Path:
        return Path(self.mjcf)

    @property
    def observation_space(self) -> spaces.Box:
        return self.dynamics.observation_space

    @property
    def action_space(self) -> spaces.Box:
        return self.dynamics.action_space

    @property
    def privileged_size(self) -> int:
        return self.dynamics.privileged_size

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

    def make_env(self, num_rows: int, generator: torch.Generator, engine: Engine | None = None) -> MujocoEnv[Any]:
        """`num_rows` simulations on the generator's device; raises what `make_physics` does."""
        contact_forces = FIELD in self.dynamics.fields
        physics = make_physics(self.model, num_rows, generator.device, contact_forces=contact_forces, engine=engine)
        return MujocoEnv(self.dynamics, self.dynamics.disturbed(physics, generator), generator)

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
            model = robot_model(self.body, self.tasks, self.actuators, self.free_base)
            if self.act is None:
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

    def _check_parameters(self) -> None:
        """Check the effects of the parameters.

        Raises:
            ValueError: for a parameter without an effect.
        """
        if warning := half_servos(self.model, self.parameters):
            _warn(f"{self.body.name}: {warning}")
        if self.start == "" and has_home(self.model):
            _warn(f"{self.body.name} has a keyframe 'home', but start is ''; set start='home', or 'qpos0' to ignore it")
        for name, parameter in self.parameters.items():
            if parameter is None and attribute(name) not in self.dynamics.asked and name not in self.unchecked:
                raise ValueError(
                    f"task {name!r} has no effect: it is no field of MuJoCo's model, and neither observe, reward, "
                    f"terminated, start nor act asks for task.{attribute(name)}{near(self.model, name)}"
                )
        check_needs(self.parameters)
        untried = (*self.unchecked, *AT_RANDOM_TIMES)
        tried = {name: parameter for name, parameter in self.parameters.items() if parameter and name not in untried}
        tasks = self.sample(_TASKS_TO_COMPARE, "train", torch.Generator().manual_seed(0))
        check_effects(self.model, self.dynamics, tasks, tried)


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
        self._terms: Mapping[str, Term] = _named(family.reward)
        self._reasons = _named(family.terminated)
        self.term_names, self.reason_names = tuple(self._terms), tuple(self._reasons)
        self._family, self._model = family, family.model
        self._dt = float(family.model.opt.timestep) * family.frame_skip
        self._names = Names(family.model)
        self._terrain = terrain_of(family.tasks)
        self._starts = Starts(family.model, family.start)
        self._noise = noise_by_joint(self._names, family.model, family.start_noise, family.joint_noise)
        self.action_space = self._action_space()
        self.places = ("mocap_pos", "mocap_quat") if family.model.nmocap else ()
        self.privileged_size = 0
        self.fields, self.fields_before, self.asked, size = self._try()
        self.observation_space = spaces.Box(-float("inf"), float("inf"), (size,))

    def physics(self, tasks: Any, nominal: Callable[[str], Tensor]) -> Mapping[str, Tensor]:
        parameters = self._family.parameters.items()
        changed = [(parameter, getattr(tasks, attribute(name))) for name, parameter in parameters if parameter]
        fields = physics(changed, nominal)
        if self._terrain is not None:
            self._terrain.place(self._model, fields, nominal)
        return fields

    def disturbed(self, physics: Physics, generator: torch.Generator, *, in_common: bool = False) -> Physics:
        """An engine's simulations with the clocks that functions ask for, and the disturbances that tasks have.

        See `TimedContacts` and `DisturbedPhysics`.
        """
        if AIR_TIME in self.fields:
            physics = TimedContacts(physics, self._names.found)
        parameters = filter(None, self._family.parameters.values())
        if not any(target.field in DISTURBANCES for parameter in parameters for target in parameter.targets):
            return physics
        return DisturbedPhysics(physics, self._model, self.frame_skip, generator, in_common=in_common)

    def initial_state(
        self, tasks: Any, qpos: Tensor, qvel: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        start = self._starts(tasks)
        return self._noise.add(start.get("qpos", qpos).to(qpos), start.get("qvel", qvel).to(qvel), generator)

    def initial_inputs(self, tasks: Any) -> Mapping[str, Tensor]:
        device = next(iter(vars(tasks).values())).device
        return {name: value.to(device) for name, value in self._starts(tasks).items() if name in INPUTS}

    def inputs(self, state: State, action: Tensor, tasks: Any) -> Mapping[str, Tensor]:
        if self._family.act is None:
            return {"ctrl": action}
        inputs = self._made_of(self._family.act(self._seen(state), action, tasks), action)
        for name, value in inputs.items():
            if value.device.type == "cpu" and not bool(value.sum().isfinite()):
                _refuse(f"{name} that act gives", value, state, tasks)
        return inputs

    def observation(self, state: State, tasks: Any) -> Tensor:
        return self._observed("observation", self._family.observe, state, tasks)

    def privileged(self, state: State, tasks: Any) -> Tensor:
        assert self._family.privileged is not None  # as `privileged_size` is not zero
        return self._observed("privileged observation", self._family.privileged, state, tasks)

    def _observed(self, what: str, observe: Observe, state: State, tasks: Any) -> Tensor:
        obs = observe(self._seen(state), tasks)
        if obs.device.type == "cpu" and not bool(obs.sum().isfinite()):  # elsewhere, asking would wait for the device
            _refuse(what, obs, state, tasks)
        return obs.to(torch.float32, copy=True)

    def reward(self, before: State, after: State, action: Tensor, tasks: Any, dt: float) -> Tensor:
        if self._terms:
            return self.terms(before, after, action, tasks, dt).sum(1)
        return self._family.reward(self._seen(after, before), action, tasks).float()

    def terms(self, before: State, after: State, action: Tensor, tasks: Any, dt: float) -> Tensor:
        seen = self._seen(after, before)
        values = [term.weight * term.function(seen, action, tasks) for term in self._terms.values()]
        return torch.stack(values, dim=1).float()

    def metrics(self, before: State, after: State, action: Tensor, tasks: Any, dt: float) -> Tensor | None:
        if not self.metric_names:
            return None
        seen = self._seen(after, before)
        return torch.stack([measure(seen, action, tasks).float() for measure in self._family.metrics.values()], dim=1)

    def terminated(self, state: State, tasks: Any) -> Tensor | None:
        if self._reasons:
            return self.reasons(state, tasks).any(1)
        return None if self._family.terminated is None else self._family.terminated(self._seen(state), tasks)

    def reasons(self, state: State, tasks: Any) -> Tensor:
        seen = self._seen(state)
        return torch.stack([reason(seen, tasks) for reason in self._reasons.values()], dim=1)

    def goal_place(self, tasks: Any) -> Tensor | None:
        return None if self._family.goal is None else self._family.goal(tasks)

    def _seen(self, state: Any, before: Any = None) -> BatchedPhysics:
        return BatchedPhysics(state, before, self._dt, self._names)

    def _action_space(self) -> spaces.Box:
        """The space of actions.

        Raises:
            ValueError: when an action has no numbers.
        """
        if self._family.act is None:
            return spaces.Box(*action_limits(self._model))
        size = self._family.num_actions or self._model.nu
        if not size:
            raise ValueError("num_actions is 0; must be at least 1, as the model has no actuator")
        return spaces.Box(-1.0, 1.0, (size,))

    def _made_of(self, given: Tensor | Mapping[str, Tensor], action: Tensor) -> dict[str, Tensor]:
        """What `act` has given, by name; without controls, all are zero."""
        named = dict(given) if isinstance(given, Mapping) else {"ctrl": given}
        return {"ctrl": action.new_zeros(len(action), self._model.nu), **named}

    def _try(self) -> tuple[tuple[str, ...], tuple[str, ...], set[str], int]:
        """Call every function on rows at rest.

        Returns the fields of MuJoCo's data that they ask for now and before a step, the fields of a task, and the size
        of an observation.
        """
        family, rows = self._family, _ROWS_TO_TRY
        for name, parameter in family.parameters.items():
            if parameter is not None and parameter.num_values > 1:
                check_draws(name, family.tasks[name], (rows, parameter.num_values))
        sampled = family.sample(rows, "train", torch.Generator().manual_seed(0))
        task, asked = noting(sampled)
        start = {name: value[0].numpy() for name, value in self._starts.tried(task).items()}
        now, before = (RestingState(self._model, rows, start) for _ in range(2))
        action = torch.zeros(rows, *self.action_space.shape)
        size = self._observed_size("observe", family.observe, self._seen(now), task)
        if family.privileged is not None:
            self.privileged_size = self._observed_size("privileged", family.privileged, self._seen(now), sampled)
        rewards = {f"reward {name!r}": term.function for name, term in self._terms.items()}
        for name, function in (rewards or {"reward": family.reward}).items():
            _check_values(name, _called(name, function, self._seen(now, before), action, task))
        ends = {f"terminated {name!r}": function for name, function in self._reasons.items()}
        for name, function in (ends or {"terminated": family.terminated}).items():
            if function is not None:
                _check_values(name, _called(name, function, self._seen(now), task), torch.bool)
        if family.act is not None:
            given = _called("act", family.act, self._seen(now), action, task)
            shapes = {"mocap_pos": (self._model.nmocap, 3), "mocap_quat": (self._model.nmocap, 4)}
            shapes = {"ctrl": (self._model.nu,), **{name: shapes[name] for name in self.places}}
            with_rows = {name: (rows, *shape) for name, shape in shapes.items()}
            check_values("act", given if isinstance(given, Mapping) else {"ctrl": given}, with_rows)
        for name, function in family.metrics.items():
            _check_values(name, _called(name, function, self._seen(now, before), action, sampled))
        if family.goal is not None:
            value = _called("goal", family.goal, sampled)
            if value.shape != (rows, 3):
                raise ValueError(f"goal gives {_form(value)} for {rows} rows: it must have the shape ({rows}, 3)")
        used = (now.used | before.used) - {"qpos", "qvel"}
        return tuple(sorted(used)), tuple(sorted(before.used)), asked, size

    def _observed_size(self, name: str, observe: Observe, physics: BatchedPhysics, task: Any) -> int:
        obs, rows = _called(name, observe, physics, task), _ROWS_TO_TRY
        if obs.ndim != 2 or len(obs) != rows or not obs.shape[1] or not obs.is_floating_point():
            raise ValueError(f"{name} gives {_form(obs)} for {rows} rows: it must be floats of shape ({rows}, size)")
        return obs.shape[1]


def _check_values(name: str, value: Tensor, dtype: torch.dtype | None = None) -> None:
    """Check the values of a function.

    Raises:
        ValueError: when a function gives something else than a number, or a bool, for each row.
    """
    right_type = value.is_floating_point() if dtype is None else value.dtype == dtype
    if value.shape != (_ROWS_TO_TRY,) or not right_type:
        kind = "floats" if dtype is None else "bools"
        raise ValueError(
            f"{name} gives {_form(value)} for {_ROWS_TO_TRY} rows: it must be {kind} of shape ({_ROWS_TO_TRY},)"
        )


def _named(functions: Any) -> Mapping[str, Any]:
    """The functions by name; empty for one function alone, or none."""
    return functions if isinstance(functions, Mapping) else {}


@cache
def _warn(text: str) -> None:
    """Warn once; a family is made again whenever one of its settings changes."""
    logger.warning(text)


def _called(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        value = function(*arguments)
    except Exception as error:  # whatever the user's function raises
        raise ValueError(f"{name} fails: {type(error).__name__}: {error}") from error
    if name == "act" and isinstance(value, Mapping):
        return value
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} gives {type(value).__name__}: it must be a tensor")
    if value.is_floating_point() and not bool(value.isfinite().all()):
        row = int((~value.isfinite()).nonzero()[0, 0])
        raise ValueError(f"{name} is not finite for a robot at rest in the task {_describe(arguments[-1], row)}")
    return value


def _refuse(what: str, values: Tensor, state: State, tasks: Any) -> None:
    """Check that values are finite.

    Raises:
        FloatingPointError: for a row whose values [B, ...] are not finite though its simulation is.
    """
    sound = torch.cat([state.qpos, state.qvel], 1).abs().amax(1) < HUGE
    bad = (~values.flatten(1).isfinite().all(1) & sound).nonzero().flatten()
    if len(bad):
        row = int(bad[0])
        place = f"qpos {state.qpos[row].tolist()}, qvel {state.qvel[row].tolist()}"
        task = _describe(tasks, row)
        raise FloatingPointError(f"{what} of row {row} is {values[row].tolist()} at {place}; its task is {task}")


def _form(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"


def _describe(task: Any, row: int) -> str:
    return ", ".join(f"{name}={values[row].tolist()}" for name, values in vars(task).items())
