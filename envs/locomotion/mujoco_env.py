"""The vectorised environment of all locomotion families.

A family states its body, reward, observation and each task's physics as functions of batched tensors; rows, the time
limit, same-step autoreset, rows that are not active and diverged simulations are handled here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from envs.locomotion.divergence import Divergences
from envs.locomotion.episode_parts import EpisodeParts
from envs.rows import one_task_per_row, replace_tasks
from envs.simulators import Physics
from envs.simulators.state import State
from metarl.parallel import anywhere
from metarl.records import Record, Step

T = TypeVar("T", bound=Record)
T_contra = TypeVar("T_contra", bound=Record, contravariant=True)


class Locomotion(Protocol[T_contra]):
    """The definition of a family; pure functions of tensors, the same for every engine.

    Tasks are expanded to one task per row. A `State` holds `qpos` [B, nq], `qvel` [B, nv] and the family's `fields`,
    live and in the engine's dtype; what is kept of it must be copied. Positions and velocities are current, fields that
    derive from them are one substep behind, as in Gymnasium.
    """

    @property
    def name(self) -> str: ...

    @property
    def body(self) -> Path: ...  # an MJCF file

    @property
    def frame_skip(self) -> int: ...  # substeps of one step

    @property
    def horizon(self) -> int: ...

    @property
    def observation_space(self) -> spaces.Box: ...

    @property
    def action_space(self) -> spaces.Box: ...

    @property
    def fields(self) -> tuple[str, ...]: ...  # further fields of MuJoCo's data read by the functions below

    @property
    def fields_before(self) -> tuple[str, ...]: ...  # all that `before` holds, such as ("qpos",)

    @property
    def metric_names(self) -> tuple[str, ...]: ...  # what `metrics` measures

    def physics(self, tasks: T_contra, nominal: Callable[[str], Tensor]) -> Mapping[str, Tensor]:
        """Model fields [B, ...] that differ from task to task, by MuJoCo's names; `nominal` gives the body's own."""
        ...

    def initial_state(
        self, tasks: T_contra, qpos: Tensor, qvel: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Where episodes start, [B, nq] and [B, nv], from the body's own position and velocity of the same shapes."""
        ...

    def observation(self, state: State, tasks: T_contra) -> Tensor:
        """[B, O] float32, a new tensor."""
        ...

    def reward(self, before: State, after: State, action: Tensor, tasks: T_contra, dt: float) -> Tensor:
        """[B] float32; `dt` is the seconds between `before` and `after`, actions are clipped to the box."""
        ...

    def metrics(self, before: State, after: State, action: Tensor, tasks: T_contra, dt: float) -> Tensor | None:
        """Metrics besides the reward, [B, M] float32 by `metric_names`; None if there are none."""
        ...

    def terminated(self, state: State, tasks: T_contra) -> Tensor | None:
        """Where the task ends the episode: [B] bool, or None where it never does."""
        ...


@runtime_checkable
class HasModels(Protocol):
    """An optional method of a family whose tasks differ in more than the numbers in MuJoCo's model."""

    def models(self, tasks: Any) -> Sequence[Any] | None:
        """A compiled model for each row, for `Physics.set_models`; None where the body's own will do for all."""
        ...


@runtime_checkable
class HasInputs(Protocol):
    """What a family has whose simulations are given more than a state and an action for controls.

    Values are [B, ...] by the names in `envs.simulators.INPUTS`.
    """

    @property
    def places(self) -> tuple[str, ...]: ...  # of mocap bodies: "mocap_pos" and "mocap_quat" where there are any

    def initial_inputs(self, tasks: Any) -> Mapping[str, Tensor]:
        """What episodes start with."""
        ...

    def inputs(self, state: State, action: Tensor, tasks: Any) -> Mapping[str, Tensor]:
        """What an action [B, A] makes of them: "ctrl", and where mocap bodies go."""
        ...


@runtime_checkable
class HasPrivileged(Protocol):
    """What a family has whose tasks show more to critics than to policies."""

    @property
    def privileged_size(self) -> int: ...  # P; zero: they do not

    def privileged(self, state: State, tasks: Any) -> Tensor:
        """[B, P] float32, a new tensor."""
        ...


class MujocoEnv(Generic[T]):
    """B rows of a locomotion family; implements `metarl.protocols.VectorEnv`, `Measures` and, on the CPU, `Renders`.

    A row whose simulation diverges ends its episode as truncated, with a zero reward and the observation and metrics of
    the step before, and starts a new one; this is logged as a warning with the task and the step, and counted in
    `num_diverged`. An asynchronous engine is not waited for: what diverged there is logged, and counted, when
    `num_diverged` is read or `reset` gives new tasks.
    """

    def __init__(self, family: Locomotion[T], physics: Physics, generator: torch.Generator) -> None:
        self.num_rows = physics.num_rows
        self.device = physics.device
        self.observation_space = family.observation_space
        self.action_space = family.action_space
        self._parts = EpisodeParts(family, self.num_rows, self.device)
        self.metric_names = (*family.metric_names, *self._parts.names)
        self.physics = physics
        self._divergences = Divergences(family.name, self.num_rows, self.device)
        self._family = family
        self._with_inputs = family if isinstance(family, HasInputs) else None
        self._with_privileged = family if isinstance(family, HasPrivileged) and family.privileged_size else None
        self._generator = generator
        self._dt = physics.timestep * family.frame_skip
        self._low, self._high = _limits(self.action_space, self.device)
        self._action_shape = (self.num_rows, *self.action_space.shape)
        self._tasks: T | None = None
        self._state, self._sensed = State(), State()  # what is, and what the robot measures of it
        self._obs, self._metrics = torch.empty(0), torch.empty(0)  # [B, O] and [B, M] of the last step
        # A row's episode has lasted clock - started steps. No row can reach the horizon before the clock reaches
        # `next_end`, so until then a step need not look.
        self._clock = 0
        self._started = torch.zeros(self.num_rows, dtype=torch.int64, device=self.device)  # [B]
        self._next_end = 0
        self._ended: tuple[Tensor, dict[str, Tensor]] | None = None  # rows that the last step ended, and their poses
        self._renderer: Any = None

    def reset(self, tasks: T) -> Step:
        """Give the rows their tasks, B / N contiguous rows each, and start a first episode in each.

        Raises:
            ValueError: when the number of tasks does not divide the number of rows.
        """
        self._divergences.report(self._tasks)
        self._tasks = one_task_per_row(tasks, self.num_rows).to(self.device)
        self._ended = None
        self._give_physics(self._tasks)
        self._start_episodes(self._tasks, None)
        self._obs = obs = self._family.observation(self._sensed, self._tasks)
        self._metrics = obs.new_zeros(self.num_rows, len(self._family.metric_names))
        metrics = self._parts.with_parts(self._metrics.clone() if self._family.metric_names else None, None)
        reward = obs.new_zeros(self.num_rows)
        return self._shown(Step(obs.clone(), obs.clone(), reward, self._no_row(), self._no_row(), metrics))

    def restart(self, tasks: T, rows: Tensor) -> Tensor:
        """Start an episode where `rows` [B] (bool) is true, each in its own of `tasks` [B]; the other rows go on.

        Returns what to act on, [B, O].

        Raises:
            RuntimeError: when called before `reset`, or on an engine that cannot change some rows alone.
        """
        if self._tasks is None or self.physics.asynchronous:
            raise RuntimeError("restart was called before reset" if self._tasks is None else "restart needs the CPU")
        self._tasks = replace_tasks(self._tasks, tasks, rows)
        self._give_physics(self._tasks)
        self._start_episodes(self._tasks, rows)
        self._obs = self._family.observation(self._sensed, self._tasks)
        return self._obs.clone()

    @property
    def num_diverged(self) -> int:
        """Simulations that diverged since this environment was made.

        Raises:
            ValueError: when an action on an asynchronous engine was not finite.
        """
        self._divergences.report(self._tasks)
        return self._divergences.count

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        """One step of all rows, or of those where `active` [B] is true; see `VectorEnv.step`.

        Raises:
            ValueError: when `action` is not a batch of actions, or not finite in an active row.
            RuntimeError: when called before `reset`.
        """
        tasks = self._tasks
        if tasks is None:
            raise RuntimeError("step was called before reset: the rows have no tasks yet")
        if action.shape != self._action_shape:
            raise ValueError(f"action has shape {tuple(action.shape)}; must be {self._action_shape}")
        family, state = self._family, self._state
        self._ended = None
        action = action.clamp(self._low, self._high)
        before = state.copy(family.fields_before)
        if self._with_inputs is None:
            diverged = self.physics.step(action, family.frame_skip, active)
        else:
            inputs = dict(self._with_inputs.inputs(state, action, tasks))
            diverged = self.physics.step(inputs.pop("ctrl"), family.frame_skip, active, inputs)

        obs_before, metrics_before = self._obs, self._metrics
        self._obs = obs = family.observation(self._sensed, tasks)
        reward = self._parts.reward(before, state, action, tasks, self._dt)
        metrics = family.metrics(before, state, action, tasks, self._dt)
        terminated = self._parts.terminated(state, tasks)
        self._clock += 1
        if active is not None:
            self._started = torch.where(active, self._started, self._started + 1)  # their episodes stand still
            reward = torch.where(active, reward, 0.0)
        if diverged is not None and metrics is not None:
            metrics = torch.where(diverged[:, None], metrics_before, metrics)
        if metrics is not None:
            self._metrics = metrics.clone()
        self._parts.count(active, diverged)
        if diverged is None and terminated is None and self._clock < self._next_end:
            metrics = self._parts.with_parts(metrics, None)
            return self._shown(Step(obs.clone(), obs.clone(), reward, self._no_row(), self._no_row(), metrics))

        truncated = self._clock - self._started >= family.horizon
        if diverged is not None:
            self._note(diverged, action, active)
            obs = torch.where(diverged[:, None], obs_before, obs)
            reward = torch.where(diverged, 0.0, reward)
            truncated = truncated | diverged
        terminated = self._no_row() if terminated is None else terminated.clone()
        if active is not None:
            terminated, truncated = terminated & active, truncated & active
        if diverged is not None:
            terminated = terminated & ~diverged
        truncated = truncated & ~terminated  # an episode has one reason to end, and the task's comes first
        metrics = self._parts.with_parts(metrics, terminated | truncated)
        return self._autoreset(tasks, Step(obs, obs.clone(), reward, terminated, truncated, metrics))

    @property
    def steps_per_episode(self) -> int | None:
        """The number of steps of every episode, if no task ends one early; else None, and before `reset`."""
        if self._tasks is None or self._family.terminated(self._state, self._tasks) is not None:
            return None
        return self._family.horizon

    @property
    def seconds_per_step(self) -> float:
        return self._dt

    def render(self, row: int = 0) -> NDArray[np.uint8]:
        """What the last step led to in a row, with what its task asks for: [480, 480, 3].

        Raises:
            RuntimeError: when called before `reset`, or MuJoCo cannot render on this machine.
        """
        from envs.simulators.rendering import SceneRenderer  # here, as only rendering needs it

        model, data = self.copy_row(row)
        if self._renderer is None:
            self._renderer = SceneRenderer(model)
        return self._renderer.image(model, data, self.markers(row, model, data))

    def markers(self, row: int, model: Any, data: Any) -> list[Any]:
        """What a row's task asks for, to be drawn into its scene (`envs.simulators.rendering`)."""
        from envs.locomotion.markers import task_markers
        from envs.simulators.rendering import Ball, body_motion

        if self._tasks is None:
            raise RuntimeError("render was called before reset: the rows have no tasks yet")
        markers = task_markers(self._tasks[row], *body_motion(model, data))
        place: Callable[[Record], Tensor | None] = getattr(self._family, "goal_place", lambda tasks: None)
        places = place(self._tasks[row : row + 1])  # [1, 3] of a family that knows where its goal is
        if places is not None:
            markers.append(Ball(places[0].tolist(), min(Ball.radius, float(model.stat.extent) / 35)))
        return markers

    def close(self) -> None:
        """Free what rendering holds; a later image makes it anew."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def copy_row(self, row: int) -> tuple[Any, Any]:
        """A row's own MuJoCo model and data, as the last step led to them.

        Raises:
            RuntimeError: on an engine that has none.
        """
        copy = getattr(self.physics, "copy_row", None)
        if copy is None:
            raise RuntimeError("only simulations on the CPU can be rendered: make the environment there")
        model, data = copy(row)
        if self._ended is not None and bool(self._ended[0][row]):
            pose = {name: values[row] for name, values in self._ended[1].items()}
            if all(bool(values.isfinite().all()) for values in pose.values()):  # not so after a divergence
                import mujoco

                for name, values in pose.items():
                    getattr(data, name)[...] = values.cpu().numpy()
                mujoco.mj_forward(model, data)  # pyright: ignore[reportAttributeAccessIssue]
        return model, data

    def _autoreset(self, tasks: T, step: Step) -> Step:
        """Start a new episode in the rows that have ended one."""
        episode_end = step.episode_end
        if not self.physics.asynchronous and not anywhere(episode_end):
            return self._shown(step)
        places = () if self._with_inputs is None else self._with_inputs.places
        pose = {name: self.physics.data(name).clone() for name in ("qpos", "qvel", *places)}
        self._ended = (episode_end, pose)
        self._start_episodes(tasks, episode_end)
        self._obs = self._family.observation(self._sensed, tasks)
        return self._shown(replace(step, obs=self._obs.clone()))

    def _shown(self, step: Step) -> Step:
        """A step with what only critics see of the state that its `obs` shows."""
        if self._with_privileged is None:
            return step
        return replace(step, privileged=self._with_privileged.privileged(self._state, self._tasks))

    def _give_physics(self, tasks: T) -> None:
        """The physics of each row's task; what rows are doing is left as it is."""
        models = self._family.models(tasks) if isinstance(self._family, HasModels) else None
        if models is not None:
            self.physics.set_models(models)
        self.physics.set_fields(self._family.physics(tasks, self.physics.field))
        self._state = State.of(self.physics, self._family.fields)
        sensors = getattr(self.physics, "sensors", None)
        self._sensed = self._state if sensors is None else State.of(sensors, self._family.fields)

    def _start_episodes(self, tasks: T, rows: Tensor | None) -> None:
        """Start all rows, or those where `rows` [B] is true, afresh."""
        physics = self.physics
        if rows is not None and not physics.asynchronous and bool(rows.all()):
            rows = None
        qpos, qvel = physics.initial_qpos.expand_as(physics.qpos), torch.zeros_like(physics.qvel)
        inputs = None if self._with_inputs is None else self._with_inputs.initial_inputs(tasks)
        physics.reset(*self._family.initial_state(tasks, qpos, qvel, self._generator), rows, inputs)
        self._parts.restart(rows)
        now = torch.full_like(self._started, self._clock)
        self._started = now if rows is None else torch.where(rows, now, self._started)
        # An asynchronous engine is not asked: there, the host looks at every step, without learning what it sees.
        self._next_end = 0 if physics.asynchronous else int(self._started.min()) + self._family.horizon

    def _no_row(self) -> Tensor:
        return torch.zeros(self.num_rows, dtype=torch.bool, device=self.device)

    def _note(self, diverged: Tensor, action: Tensor, active: Tensor | None) -> None:
        """Note diverged rows, and report them at once where the engine does not run ahead.

        Raises:
            ValueError: when an action is not finite, which is the caller's mistake.
        """
        bad_action = ~action.isfinite().all(1)
        if active is not None:
            bad_action = bad_action & active
        if not self.physics.asynchronous and bool(bad_action.any()):
            row = int(bad_action.nonzero()[0])
            raise ValueError(f"action of row {row} is {action[row].tolist()}; must be finite")
        self._divergences.note(diverged, self._clock - self._started, bad_action)
        if not self.physics.asynchronous:
            self._divergences.report(self._tasks)


def _limits(space: spaces.Box, device: torch.device) -> tuple[Any, Any]:
    """The ends of a Box: two numbers, which clamp faster, where its axes are alike; else tensors [A]."""
    low, high = space.low, space.high
    if (low == low[0]).all() and (high == high[0]).all():
        return float(low[0]), float(high[0])
    return torch.as_tensor(low, device=device), torch.as_tensor(high, device=device)
