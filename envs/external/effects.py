"""Whether a parameter of a third-party environment has its whole effect: two environments, stepped side by side.

Both start from one seed and take one row of actions. Three things go wrong in silence when a parameter is an attribute:
nothing reads it; `reset` puts it back; or others were computed from it when the environment was made, and stay as they
were (the total mass of a cart and its pole). The last shows beside an environment in which the attribute had its value
from the beginning: while one is made, what its class is told to set is set to that value.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from envs.external.rows import Maker
from envs.external.streams import seed_spaces, seed_streams, streams_kept
from envs.external.time_limit import time_limit

NUM_STEPS = 20


def check_effects(
    maker: Maker,
    values: Mapping[str, Sequence[float]],
    names: Sequence[str],
    horizon: int,
    step_timeout: float | None = None,
) -> tuple[str, ...]:
    """Compare tasks that differ in one parameter alone, for each of `names`.

    values: what tasks have been drawn with, by the parameters' names. Environments that do not repeat themselves from a
    seed, or of which a process cannot hold two, are not checked. step_timeout: seconds that a step or a reset may take.

    Returns the parameters of which nothing can be told, as all steps of the environment are the same.

    Raises:
        ValueError: naming a parameter without an effect, or with a part of it; or a call that takes too long.
    """
    first = {name: drawn[0] for name, drawn in values.items()}
    others = {name: first | {name: max(values[name], key=lambda value: abs(value - first[name]))} for name in names}
    others = {name: task for name, task in others.items() if task != first}
    with streams_kept():
        pair = _Pair(maker, min(horizon, NUM_STEPS), step_timeout)
        try:
            if not others or pair.differ(first, first):
                return ()
            untold = []
            for name, task in others.items():
                pair.check_whole(name, task)
                if not pair.differ(first, task) and not _has_reader(name, (first[name], task[name]), pair):
                    untold.append(name)
            return tuple(untold)
        except _CannotTell:
            return ()
        finally:
            pair.close()


def _has_reader(name: str, values: tuple[float, float], pair: _Pair) -> bool:
    """Whether anything reads a parameter without an effect so far; false where nothing else has an effect either.

    Raises:
        ValueError: for a parameter without an effect so far, which was put back or which nothing has read.
    """
    written = pair.written
    for attribute, value in written.put.items():
        if not _same(getattr(written.owner_of[attribute], attribute, None), value):
            raise ValueError(
                f"task {name!r} has no effect: reset or step puts {attribute!r} back; make the environment by a "
                "function, of a subclass that leaves it alone"
            )
    has_reader = bool(written.read & set(written.put))
    if not has_reader and pair.moves:
        raise ValueError(
            f"task {name!r} has no effect: {pair.num_steps} random steps with {values[0]:.3g} and with {values[1]:.3g} "
            f"are the same; leave it out, or, if its effect is rare or late, set unchecked=({name!r},)"
        )
    return has_reader


class _CannotTell(Exception):  # noqa: N818, no mistake of the user's
    """There is no second environment to compare with, or neither can be stepped."""


@dataclass
class _Written:
    """What writing a task into an environment has set, and what was read of it afterwards."""

    put: dict[str, Any] = field(default_factory=dict)  # attributes with their values
    owner_of: dict[str, Any] = field(default_factory=dict)  # the objects that have these attributes
    read: set[str] = field(default_factory=set)


class _Pair:
    """Two environments side by side, of which the second is watched."""

    def __init__(self, maker: Maker, num_steps: int, step_timeout: float | None) -> None:
        self.num_steps = num_steps
        self._step_timeout = step_timeout
        self.moves = False  # whether any two steps of an episode have differed
        self.written = _Written()
        self._maker = maker
        self._envs: list[gymnasium.Env[Any, Any]] = []

    def differ(self, one: Mapping[str, float], other: Mapping[str, float]) -> bool:
        """Whether one episode's steps differ between two tasks; `written` tells of the second."""
        while len(self._envs) < 2:
            self._envs.append(self._made())
        plain, watched = self._envs
        self._maker.write(plain, one)
        self.written = self._write_watched(watched, other)
        owners = list({id(owner): owner for owner in self.written.owner_of.values()}.values())
        with _watched(owners, self.written.read, {}, {}):
            differ = self._run(plain, watched)
        return differ

    def check_whole(self, name: str, task: Mapping[str, float]) -> None:
        """Check that a task written into an environment acts like one that it had when it was made.

        Raises:
            ValueError: when a task written into an environment is another than one that it had when it was made.
        """
        while len(self._envs) < 2:
            self._envs.append(self._made())
        written_env = self._envs[0]
        written = self._write_watched(written_env, task)
        kinds = {type(owner) for owner in written.owner_of.values()}
        try:
            with _set_from_the_start(kinds, written.put) as was_set:
                whole_env = self._made()
        except _CannotTell:  # with such a value
            return
        try:
            self._maker.write(whole_env, task)
            for env in (written_env, whole_env):
                self._outcome(env, _reset)
            stale = _numbers_that_differ(written_env.unwrapped, whole_env.unwrapped) if was_set else []
            if stale and self._run(written_env, whole_env):
                these, keep = ("attributes", "keep their values") if stale[1:] else ("an attribute", "keeps its value")
                raise ValueError(
                    f"task {name!r} lacks a part of its effect: {these} computed from it when the environment is made, "
                    f"{', '.join(stale[:4])}, {keep}; set all of them in a function, apply(env, task)"
                )
        finally:
            whole_env.close()

    def close(self) -> None:
        for env in self._envs:
            env.close()
        self._envs.clear()

    def _made(self) -> gymnasium.Env[Any, Any]:
        seed_streams(0)
        try:
            return self._maker.make()
        except Exception as error:  # whatever third-party code raises
            raise _CannotTell from error

    def _write_watched(self, env: gymnasium.Env[Any, Any], task: Mapping[str, float]) -> _Written:
        """Write a task, and note which attributes that sets."""
        written = _Written()
        owners = [env.unwrapped]
        if not callable(self._maker.apply):
            paths = [(self._maker.apply or {}).get(name, name) for name in task]
            owners += [_owner(env.unwrapped, path) for path in paths if "." in path]
        with _watched(owners, set(), written.put, written.owner_of):
            self._maker.write(env, task)
        return written

    def _run(self, one: gymnasium.Env[Any, Any], other: gymnasium.Env[Any, Any]) -> bool:
        """Whether the steps of one episode differ, under the same actions."""
        space = copy.deepcopy(one.action_space)
        space.seed(0)
        outcomes = [self._outcome(env, _reset) for env in (one, other)]
        for _ in range(self.num_steps):
            if not _same(*outcomes):
                return True
            if isinstance(outcomes[0], _Raised):  # both have
                raise _CannotTell
            if outcomes[0][-1]:  # both have ended
                return False
            action = space.sample()
            before = outcomes[0]
            outcomes = [self._outcome(env, lambda env: env.step(copy.deepcopy(action))[:4]) for env in (one, other)]  # noqa: B023
            told = min(len(before) - 1, 2)  # observation and reward; of a reset the observation alone
            self.moves |= not _same(before[:told], outcomes[0][:told])
        return not _same(*outcomes)

    def _outcome(self, env: gymnasium.Env[Any, Any], call: Callable[[Any], tuple[Any, ...]]) -> tuple[Any, ...]:
        """What a call gives, and whether the episode is over; or what it raises.

        Raises:
            ValueError: when it takes too long.
        """
        seed_streams(0)
        try:
            with time_limit(self._step_timeout):
                values = call(env)
        except TimeoutError as error:
            raise ValueError(f"reset or step gives {error}") from error
        except (Exception, SystemExit) as error:  # whatever third-party code raises
            return _Raised((repr(error),))
        return *values, len(values) > 1 and bool(values[2] or values[3])


def _reset(env: gymnasium.Env[Any, Any]) -> tuple[Any, ...]:
    seed_spaces(env, 0)
    return (env.reset(seed=0)[0],)


class _Raised(tuple[Any, ...]):
    """The text of an error, as the outcome of a call."""


def _same(one: Any, other: Any) -> bool:
    """Whether two values, or all in them, are equal, where NaN equals NaN."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(one) == len(other) and all(map(_same, one, other))
    try:
        return bool(np.array_equal(np.asarray(one, dtype=float), np.asarray(other, dtype=float), equal_nan=True))
    except (TypeError, ValueError):
        return one is other or (type(one) is type(other) and bool(np.all(one == other)))


def _owner(env: Any, path: str) -> Any:
    for part in path.split(".")[:-1]:
        env = getattr(env, part)
    return env


def _numbers_that_differ(one: Any, other: Any, depth: int = 1) -> list[str]:
    """The attributes of two objects, and of the objects of the same module in them, that are numbers and differ."""
    found = []
    mine, theirs = (getattr(each, "__dict__", {}) for each in (one, other))
    for name in mine.keys() & theirs.keys():
        values = (mine[name], theirs[name])
        if all(_is_number(value) for value in values):
            if not _same(*values):
                found.append(name)
        elif depth and type(values[0]).__module__ == type(one).__module__:
            found += [f"{name}.{inner}" for inner in _numbers_that_differ(*values, depth - 1)]
    return sorted(found)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) or (isinstance(value, np.ndarray) and value.dtype.kind in "iuf")


@contextmanager
def _watched(owners: Sequence[Any], read: set[str], put: dict[str, Any], owner_of: dict[str, Any]) -> Iterator[None]:
    """The context in which it is noted what is read of some objects and what is set, with the object that has it."""
    kinds = []
    for owner in owners:
        kind = type(owner)

        def get(self: Any, name: str, kind: Any = kind) -> Any:
            read.add(name)
            return kind.__getattribute__(self, name)

        def assign(self: Any, name: str, value: Any, kind: Any = kind, owner: Any = owner) -> None:
            put[name] = value
            owner_of[name] = owner
            kind.__setattr__(self, name, value)

        try:
            owner.__class__ = type(kind.__name__, (kind,), {"__getattribute__": get, "__setattr__": assign})
        except Exception:  # a class of C's, or one that refuses to be derived from
            continue
        kinds.append((owner, kind))
    try:
        yield
    finally:
        for owner, kind in reversed(kinds):
            object.__setattr__(owner, "__class__", kind)  # past the noting


@contextmanager
def _set_from_the_start(kinds: set[type], values: Mapping[str, Any]) -> Iterator[set[str]]:
    """The context in which attributes of new objects get these values whatever they are set to; which of them were."""
    was_set: set[str] = set()
    before = {kind: vars(kind).get("__setattr__") for kind in kinds}
    changed = []
    for kind in kinds:

        def assign(self: Any, name: str, value: Any, assign_own: Any = kind.__setattr__) -> None:
            if name in values:
                was_set.add(name)
            assign_own(self, name, values.get(name, value))

        try:
            kind.__setattr__ = assign  # pyright: ignore[reportAttributeAccessIssue]
        except TypeError:  # a class of C's
            continue
        changed.append(kind)
    try:
        yield was_set
    finally:
        for kind in changed:
            if before[kind] is None:
                del kind.__setattr__
            else:
                kind.__setattr__ = before[kind]
