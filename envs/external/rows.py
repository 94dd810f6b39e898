"""Some rows of one third-party Gymnasium environment, stepped one after the other: what a worker process holds.

This module must not import torch, as every worker imports it. Gymnasium's own SyncVectorEnv is not used, as it steps
all of its environments always and falls with the first one that raises.
"""

from __future__ import annotations

import difflib
import multiprocessing
import os
import random
import signal
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

from envs.external.spaces import decode, encode, flat_spaces
from envs.external.streams import own_spaces, seed_spaces, seed_streams, streams_kept
from envs.external.time_limit import time_limit

Apply = Callable[[Any, Mapping[str, float]], None]  # (unwrapped environment, values by the parameters' names)

SCORES = ("return", "mean", "iqm", "ci95_low", "ci95_high")  # names that logs and evaluations use themselves
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
        """A fresh environment with its own spaces.

        Raises:
            Exception: any exception raised by the environment's constructor.
            ValueError: for a horizon beyond the environment's own time limit.
        """
        env = self._made()
        own_spaces(env)
        return env

    def _made(self) -> gymnasium.Env[Any, Any]:
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
        name = self.env.rpartition(":")[2]  # without the module that registers it
        return gymnasium.make(name if name in gymnasium.registry else self.env, **options)

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
        metric_names: Sequence[str] = (),
        at_work: Any = None,
        owner: int | None = None,
        registered: Mapping[str, Any] | None = None,
    ) -> None:
        """
        metric_names: the numbers of `info` to report. at_work: an object whose `value`, seen by the owner, is set to
        the row that is being stepped. owner: the id of the process that these rows work for, if they may be in another
        one; a worker ignores Ctrl-C and ends with its owner. registered: environments to register in a worker, by id.
        """
        self._is_worker = owner not in (None, os.getpid())
        if self._is_worker:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            threading.Thread(target=_end_with_owner, daemon=True).start()
            gymnasium.registry.update(registered or {})
        self.observation_space, self.action_space = observation_space, action_space
        self._metric_names = tuple(metric_names)
        self._maker, self._at_work = maker, at_work
        self._envs: list[gymnasium.Env[Any, Any] | None] = [None] * num_rows
        self._tasks: list[Mapping[str, float]] = [{}] * num_rows
        self._seeds = [random.Random(row) for row in range(num_rows)]  # of the global streams, by row
        self._obs = np.zeros((num_rows, *observation_space.shape), dtype=np.float32)  # to act on, [G, O]
        self._images: dict[int, Any] = {}  # of rows that are watched: of the end that the last step led to, or None

    def start_rows(
        self, rows: Sequence[int], tasks: Sequence[Mapping[str, float]], seeds: Sequence[int]
    ) -> tuple[NDArray[np.float32], dict[int, str]]:
        """Give rows their tasks and start a seeded episode in each; all observations [G, O], errors by row."""
        errors = {}
        with self._streams():
            for row, task, seed in zip(rows, tasks, seeds, strict=True):
                self._tasks[row], self._seeds[row] = task, random.Random(seed)
                self._images.pop(row, None)
                error = self._guarded(row, lambda row=row, seed=seed: self._begin(row, seed))
                if error is not None:
                    errors[row] = error
        return self._obs.copy(), errors

    def step_rows(self, actions: NDArray[Any], active: NDArray[np.bool_]) -> tuple[Any, ...]:
        """One step of the rows where `active` [G] is true.

        Returns obs [G, O] to act on, next_obs [G, O] that the actions led to, reward [G], terminated [G],
        truncated [G], metrics [G, M] with NaN where `info` lacks one, the errors by row, and the names of numbers in
        `info` that are not among the metrics.
        """
        num_rows = len(self._envs)
        next_obs, reward = self._obs.copy(), np.zeros(num_rows, dtype=np.float32)
        terminated, truncated = np.zeros(num_rows, dtype=bool), np.zeros(num_rows, dtype=bool)
        metrics = np.zeros((num_rows, len(self._metric_names)), dtype=np.float32)
        errors, unreported = {}, set()

        def step(row: int) -> None:
            env = self._envs[row]
            assert env is not None
            result = read_step(env, env.step(decode(env.action_space, actions[row])))
            next_obs[row] = self._obs[row] = result.obs
            reward[row], terminated[row], truncated[row] = result.reward, result.terminated, result.truncated
            metrics[row] = [result.numbers.get(name, np.nan) for name in self._metric_names]
            unreported.update(result.numbers)
            if terminated[row] or truncated[row]:
                if row in self._images:
                    self._images[row] = env.render()
                self._begin(row, None)
            elif row in self._images:
                self._images[row] = None

        with self._streams():
            for row in np.flatnonzero(active).tolist():
                error = self._guarded(row, lambda row=row: step(row))
                if error is not None:
                    errors[row] = error
        truncated &= ~terminated  # an episode has one reason to end, and the task's comes first
        unreported.difference_update(self._metric_names)
        return self._obs.copy(), next_obs, reward, terminated, truncated, metrics, errors, unreported

    def image(self, row: int) -> tuple[Any, str | None]:
        """What the last step led to in a row, before any reset, and None; or None and an error.

        The end of an episode is only known to a row that is watched, which it is from the first call on.
        """
        env = self._envs[row]
        image = self._images.get(row)
        try:
            if image is None and env is not None:
                image = env.render()
        except Exception as error:  # such as a library that is not installed
            return None, _text(error)
        self._images.setdefault(row, None)
        return image, None

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
        if seed is not None:
            seed_spaces(env, seed)
        self._obs[row] = read_reset(env, env.reset(seed=seed))

    def _streams(self) -> AbstractContextManager[None]:
        """Keep the random streams of a process that does other work too; a worker steps rows only."""
        return nullcontext() if self._is_worker else streams_kept()

    def _guarded(self, row: int, action: Callable[[], None]) -> str | None:
        """Do it; an error drops the environment and is returned as text."""
        if self._at_work is not None:
            self._at_work.value = row
        text = None
        seed_streams(self._seeds[row].getrandbits(32))
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


def _end_with_owner() -> None:
    """Wait for the end of the owner, however it ends, and end this process too, even in the middle of a step."""
    owner = multiprocessing.parent_process()
    if owner is not None:
        owner.join()
        os._exit(1)


class StepResult(NamedTuple):
    """The result of an environment's step, checked."""

    obs: NDArray[np.float32]  # [O]
    reward: float
    terminated: bool
    truncated: bool
    numbers: dict[str, float]  # of `info`, by name


def read_reset(env: gymnasium.Env[Any, Any], result: Any) -> NDArray[np.float32]:
    """The observation [O] that `reset` returned.

    Raises:
        ValueError: unless it returned an observation of its space and a dict.
    """
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], Mapping):
        raise ValueError("reset does not return two values, an observation and a dict")
    return encode(env.observation_space, result[0])


def read_step(env: gymnasium.Env[Any, Any], result: Any) -> StepResult:
    """What `step` returned.

    Raises:
        ValueError: unless it returned Gymnasium's five values, each of the right shape and kind.
    """
    obs, reward, terminated, truncated, info = result
    ends = (_one_number("terminated", terminated), _one_number("truncated", truncated))
    numbers = info_numbers(info) if info else {}
    return StepResult(
        encode(env.observation_space, obs), _one_number("reward", reward), bool(ends[0]), bool(ends[1]), numbers
    )


def _one_number(name: str, value: Any) -> float:
    """A number or boolean, or an array with one of them.

    Raises:
        ValueError: for other values.
    """
    if isinstance(value, (float, int)):
        return value
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise ValueError(f"{name} is {' '.join(repr(value).split())}; must be one number")
    return array.item()


def info_numbers(info: Mapping[str, Any]) -> dict[str, float]:
    """The entries of `info` that are one number or boolean, by name; those named as a score get the prefix "info_"."""
    numbers = {}
    for name, value in info.items():
        if not isinstance(name, str) or not isinstance(value, (float, int, np.generic, np.ndarray)):
            continue
        if np.size(value) == 1 and np.asarray(value).dtype.kind in "biuf":
            numbers[f"info_{name}" if name in SCORES else name] = float(np.asarray(value).item())
    return numbers


@dataclass(frozen=True)
class Probed:
    """What an environment tells of itself, as task families have it."""

    observation_space: spaces.Box  # flat, float32
    action_space: spaces.Box | spaces.Discrete  # flat, float32; or counted from zero
    horizon: int
    seconds_per_step: float | None  # on the screen; None: it cannot be seen
    metric_names: tuple[str, ...]  # of the numbers in `info` of a step
    repeats: bool  # whether two starts from one seed are equal


def probe(
    maker: Maker, task: Mapping[str, float], flatten_images: bool = False, step_timeout: float | None = None
) -> Probed:
    """Make an environment, try a task, a reset and a step on it twice, and close it again.

    step_timeout: seconds that each of them may take; None: any time.

    Raises:
        ValueError: naming what fails, or what task families cannot deal with.
    """
    with streams_kept():
        seed_streams(0)
        env = _named("env", maker.make, step_timeout)
        try:
            limit = maker.horizon or (env.spec.max_episode_steps if env.spec is not None else None)
            if limit is None:
                raise ValueError("horizon is 0, but the environment has no time limit of its own: give it one")
            observation_space, action_space = flat_spaces(env, flatten_images)
            (start, result), (start_again, again) = (
                _try(maker, env, task, action_space, step_timeout) for _ in range(2)
            )
            repeats = all(
                np.array_equal(one, other, equal_nan=True)
                for one, other in ((start, start_again), (result.obs, again.obs), (result.reward, again.reward))
            )
            names = tuple(sorted(result.numbers))
            return Probed(observation_space, action_space, limit, _seconds_per_step(maker, env), names, repeats)
        finally:
            env.close()


def _try(
    maker: Maker,
    env: gymnasium.Env[Any, Any],
    task: Mapping[str, float],
    action_space: spaces.Box | spaces.Discrete,
    step_timeout: float | None,
) -> tuple[NDArray[np.float32], StepResult]:
    """The observation [O] that a seeded episode starts with, and its first step.

    Raises:
        ValueError: naming what fails.
    """
    seed_streams(0)
    seed_spaces(env, 0)
    _named("apply", lambda: maker.write(env, task))
    obs = _named("reset", lambda: read_reset(env, env.reset(seed=0)), step_timeout)
    action = _calm(action_space)
    return obs, _named("step", lambda: read_step(env, env.step(decode(env.action_space, action))), step_timeout)


def _calm(space: spaces.Box | spaces.Discrete) -> NDArray[Any]:
    """The action nearest to zero."""
    if isinstance(space, spaces.Discrete):
        return np.zeros((), dtype=np.int64)
    return np.clip(np.zeros(space.shape, dtype=np.float32), space.low, space.high)


def _named(what: str, function: Callable[[], Any], seconds: float | None = None) -> Any:
    """The function's result.

    Raises:
        ValueError: when the function raises any exception, or takes longer than `seconds`.
    """
    try:
        with time_limit(seconds):
            return function()
    except (Exception, SystemExit) as error:  # whatever third-party code raises
        raise ValueError(f"{what} fails: {_text(error)}") from error


def _seconds_per_step(maker: Maker, env: gymnasium.Env[Any, Any]) -> float | None:
    can = isinstance(maker.env, str) and "rgb_array" in (env.metadata.get("render_modes") or ())
    if env.render_mode != "rgb_array" and (not can or env.render_mode is not None):
        return None
    return 1 / (env.metadata.get("render_fps") or 20)


def _text(error: BaseException) -> str:
    """An error in one line: the message of one of our own, or else the type, message, file and line."""
    places = [(_file(frame), line) for frame, line in traceback.walk_tb(error.__traceback__)]
    theirs = [(file, line) for file, line in places if file.parent != Path(__file__).parent]
    if not theirs and isinstance(error, ValueError):
        return " ".join(str(error).split())
    text = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    return f"{text} ({theirs[-1][0].name}:{theirs[-1][1]})" if theirs else text


def _file(frame: FrameType) -> Path:
    """The file of a frame's code; the module's file if the function was pickled by value, without its own."""
    name = frame.f_code.co_filename
    return Path(frame.f_globals.get("__file__", name) if name.startswith("<") else name)


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
