"""Some rows of one third-party Gymnasium environment, stepped one after the other: what a worker process holds.

This module must not import torch, as every worker imports it. Gymnasium's own SyncVectorEnv is not used, as it steps
all of its environments always and falls with the first one that raises.
"""

from __future__ import annotations

import difflib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

Apply = Callable[[Any, Mapping[str, float]], None]  # (unwrapped environment, values by the parameters' names)

NOWHERE = -1  # of the row at work: none is


@dataclass(frozen=True)
class Maker:
    """How an environment is made, given a task and spoken to; travels to worker processes."""

    env: str | Callable[[], gymnasium.Env[Any, Any]]
    options: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments of `gymnasium.make`
    horizon: int = 0  # 0: the limit that the environment is registered with
    apply: Apply | Mapping[str, str] | None = None
    visible: bool = False  # made to be rendered

    def make(self) -> gymnasium.Env[Any, Any]:
        """A fresh environment.

        Raises:
            Exception: any exception raised by the environment's constructor.
            ValueError: for a horizon beyond the environment's own time limit.
        """
        if not isinstance(self.env, str):
            env = self.env()
            limit = env.spec.max_episode_steps if env.spec is not None else None
            if limit is not None and limit < self.horizon:
                raise ValueError(f"horizon is {self.horizon}; must be at most {limit}, the environment's own limit")
            return env if self.horizon in (0, limit) else TimeLimit(env, self.horizon)
        options = {"disable_env_checker": True, **self.options}
        if self.visible:
            options.setdefault("render_mode", "rgb_array")
        if self.horizon:
            options["max_episode_steps"] = self.horizon
        return gymnasium.make(self.env, **options)

    def write(self, env: gymnasium.Env[Any, Any], task: Mapping[str, float]) -> None:
        """Write a task into an environment.

        Raises:
            ValueError: when an attribute that a parameter names is not there, or holds something else than a number.
        """
        if callable(self.apply):
            self.apply(env.unwrapped, task)
            return
        paths = self.apply or {}
        for name, value in task.items():
            _set(env.unwrapped, name, paths.get(name, name), value)


class Rows(gymnasium.Env[Any, Any]):
    """G environments of one kind, each in a task of its own; a `gymnasium.Env` only for AsyncVectorEnv to hold it.

    Everything is asked for by the methods below. What an environment raises is caught: it is dropped, and the text
    returned under its row for the other side to decide; `start_rows` makes a new one. Environments are made when they
    are first needed, so that a copy that is never asked anything costs nothing.
    """

    def __init__(
        self,
        maker: Maker,
        num_rows: int,
        observation_space: spaces.Box,
        action_space: spaces.Space[Any],
        at_work: Any = None,
        owner: int | None = None,
    ) -> None:
        """
        at_work: what has a `value` that others see, set to the row that is being stepped. owner: the process that this
        is made for, if it may be in another one; there, Ctrl-C is left to the owner, who stops when it sees fit.
        """
        if owner not in (None, os.getpid()):
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.observation_space, self.action_space = observation_space, action_space
        self._maker, self._at_work = maker, at_work
        self._envs: list[gymnasium.Env[Any, Any] | None] = [None] * num_rows
        self._tasks: list[Mapping[str, float]] = [{}] * num_rows
        self._obs = np.zeros((num_rows, *observation_space.shape), dtype=np.float32)  # to act on, [G, O]
        self._pictures: dict[int, Any] = {}  # of rows that are watched: of the end that the last step led to, or None

    def start_rows(
        self, rows: Sequence[int], tasks: Sequence[Mapping[str, float]], seeds: Sequence[int]
    ) -> tuple[NDArray[np.float32], dict[int, str]]:
        """Give rows their tasks and start a seeded episode in each; all observations [G, O], errors by row."""
        errors = {}
        for row, task, seed in zip(rows, tasks, seeds, strict=True):
            self._tasks[row] = task
            self._pictures.pop(row, None)
            error = self._guarded(row, lambda row=row, seed=seed: self._begin(row, seed))
            if error is not None:
                errors[row] = error
        return self._obs.copy(), errors

    def step_rows(self, actions: NDArray[Any], active: NDArray[np.bool_]) -> tuple[Any, ...]:
        """One step of the rows where `active` [G] is true.

        Returns obs [G, O] to act on, next_obs [G, O] that the actions led to, reward [G], terminated [G],
        truncated [G] and the errors by row.
        """
        num_rows = len(self._envs)
        next_obs, reward = self._obs.copy(), np.zeros(num_rows, dtype=np.float32)
        terminated, truncated = np.zeros(num_rows, dtype=bool), np.zeros(num_rows, dtype=bool)
        errors = {}

        def step(row: int) -> None:
            env = self._envs[row]
            assert env is not None
            result = env.step(_as_action(env.action_space, actions[row]))
            next_obs[row] = self._obs[row] = _flat(env.observation_space, result[0])
            reward[row], terminated[row], truncated[row] = result[1], result[2], result[3]
            if terminated[row] or truncated[row]:
                if row in self._pictures:
                    self._pictures[row] = env.render()
                self._begin(row, None)
            elif row in self._pictures:
                self._pictures[row] = None

        for row in np.flatnonzero(active).tolist():
            error = self._guarded(row, lambda row=row: step(row))
            if error is not None:
                errors[row] = error
        truncated &= ~terminated  # an episode has one reason to end, and the task's comes first
        return self._obs.copy(), next_obs, reward, terminated, truncated, errors

    def picture(self, row: int) -> tuple[Any, str | None]:
        """What the last step led to in a row, before any reset, and None; or None and an error.

        The end of an episode is only known to a row that is watched, which it is from the first call on.
        """
        env = self._envs[row]
        picture = self._pictures.get(row)
        try:
            if picture is None and env is not None:
                picture = env.render()
        except Exception as error:  # such as a library that is not installed
            return None, _text(error)
        self._pictures.setdefault(row, None)
        return picture, None

    def close(self) -> None:
        for row in range(len(self._envs)):
            self._drop(row)

    def stop_rows(self) -> None:
        """Close all environments; the name is for AsyncVectorEnv, which keeps `close` to itself."""
        self.close()

    def _begin(self, row: int, seed: int | None) -> None:
        """Start an episode; without a seed, with the environment's own randomness going on."""
        env = self._envs[row]
        if env is None:
            env = self._envs[row] = self._maker.make()
        self._maker.write(env, self._tasks[row])
        obs, _ = env.reset(seed=seed)
        self._obs[row] = _flat(env.observation_space, obs)

    def _guarded(self, row: int, action: Callable[[], None]) -> str | None:
        """Do it; an error drops the environment and is returned as text."""
        if self._at_work is not None:
            self._at_work.value = row
        text = None
        try:
            action()
        except (Exception, SystemExit) as error:  # whatever third-party code raises
            self._drop(row)
            text = _text(error)
        if self._at_work is not None:
            self._at_work.value = NOWHERE
        return text

    def _drop(self, row: int) -> None:
        env, self._envs[row] = self._envs[row], None
        try:
            if env is not None:
                env.close()
        except Exception:
            pass


@dataclass(frozen=True)
class Probed:
    """What an environment tells of itself, as task families have it."""

    observation_space: spaces.Box  # flat, float32
    action_space: spaces.Box | spaces.Discrete  # flat, float32; or counted from zero
    horizon: int
    seconds_per_step: float | None  # on the screen; None: it cannot be seen


def probe(maker: Maker, task: Mapping[str, float]) -> Probed:
    """Make an environment, try a task on it, and close it again.

    Raises:
        ValueError: naming what fails, or what task families cannot deal with.
    """
    env = _named("env", maker.make)
    try:
        limit = maker.horizon or (env.spec.max_episode_steps if env.spec is not None else None)
        if limit is None:
            raise ValueError("horizon is 0, but the environment has no time limit of its own: give it one")
        observation_space, action_space = _flat_spaces(env)
        _named("apply", lambda: maker.write(env, task))
        obs, _ = _named("reset", lambda: env.reset(seed=0))
        obs = _named("reset", lambda: _flat(env.observation_space, obs))
        if obs.shape != observation_space.shape:
            raise ValueError(f"reset gives {obs.shape} numbers where its space has {observation_space.shape}")
        return Probed(observation_space, action_space, limit, _seconds_per_step(maker, env))
    finally:
        env.close()


def _named(what: str, function: Callable[[], Any]) -> Any:
    """The function's result.

    Raises:
        ValueError: when the function raises any exception.
    """
    try:
        return function()
    except ValueError as error:
        raise ValueError(f"{what} fails: {' '.join(str(error).split())}") from error
    except Exception as error:  # whatever third-party code raises
        raise ValueError(f"{what} fails: {_text(error)}") from error


def _seconds_per_step(maker: Maker, env: gymnasium.Env[Any, Any]) -> float | None:
    can = isinstance(maker.env, str) and "rgb_array" in (env.metadata.get("render_modes") or ())
    if env.render_mode != "rgb_array" and (not can or env.render_mode is not None):
        return None
    return 1 / (env.metadata.get("render_fps") or 20)


def _flat_spaces(env: gymnasium.Env[Any, Any]) -> tuple[spaces.Box, spaces.Box | spaces.Discrete]:
    """The environment's flattened observation and action spaces.

    Raises:
        ValueError: when they cannot be flattened.
    """
    try:
        space = spaces.flatten_space(env.observation_space)
    except NotImplementedError:
        space = None
    if not isinstance(space, spaces.Box) or not space.shape[0]:
        raise ValueError(f"its observation space is {env.observation_space}; must be one that Gymnasium can flatten")
    action_space = env.action_space
    if isinstance(action_space, spaces.Discrete):
        return _float_box(space), spaces.Discrete(int(action_space.n))
    if not isinstance(action_space, spaces.Box) or not np.issubdtype(action_space.dtype, np.floating):
        raise ValueError(f"its action space is {action_space}; must be Discrete or a Box of floats")
    return _float_box(space), _float_box(spaces.flatten_space(action_space))


def _text(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


def _float_box(space: Any) -> spaces.Box:
    with np.errstate(over="ignore"):  # a limit of float64 may be infinite here
        return spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)


def _flat(space: spaces.Space[Any], obs: Any) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return np.asarray(spaces.flatten(space, obs)).astype(np.float32)


def _as_action(space: Any, action: NDArray[Any]) -> Any:
    """A row's flat action as the environment takes it; those of a Discrete count from zero."""
    if isinstance(space, spaces.Discrete):
        return space.start + action
    return action.reshape(space.shape).astype(space.dtype)


def _set(env: Any, name: str, path: str, value: float) -> None:
    """Set an attribute that is a number, such as "g" or "model.dt"."""
    *owners, last = path.split(".")
    owner = env
    for part in (*owners, last):
        if not hasattr(owner, part):
            known = [other for other in dir(owner) if not other.startswith("_")]
            near = difflib.get_close_matches(part, known, n=1)
            hint = f": did you mean {near[0]!r}?" if near else ": another way needs a function, `apply`"
            raise ValueError(f"task {name!r} sets {path!r}, but {type(owner).__name__} has no attribute {part!r}{hint}")
        owner = owner if part is last else getattr(owner, part)
    old = getattr(owner, last)
    if isinstance(old, bool) or not isinstance(old, (int, float, np.number)):
        kind = type(old).__name__
        raise ValueError(
            f"task {name!r} sets {path!r}, which is a {kind} and no number: that needs a function, `apply`"
        )
    whole = isinstance(old, (int, np.integer)) and float(value).is_integer()
    setattr(owner, last, int(value) if whole else value)
