"""Meta-World's side of the pipe: rows of its environments, in an interpreter that has the package `metaworld`.

That interpreter runs this file and needs nothing else of ours: it imports numpy and the standard library, and the
package when it is first asked for something. Its answers go to standard output, so whatever the package prints goes to
standard error instead.

A message is the length of a header (8 bytes, big-endian), the header in JSON, and the bytes of its arrays. Only numbers
and texts travel, never pickled objects, as the two interpreters have different versions of nearly everything.
"""

from __future__ import annotations

import difflib
import importlib
import json
import os
import pickle
import platform
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, BinaryIO

import numpy as np

PROTOCOL = 1  # number of this form of messages, which both sides must speak
PACKAGES = ("metaworld", "mujoco", "gymnasium", "numpy")  # whose versions are told
METRICS = ("success", "steps_to_success", "last_step_success")  # of an episode, told at its last step


# Messages


def write_message(stream: BinaryIO, content: Any, arrays: Sequence[np.ndarray] = ()) -> None:
    """Write JSON values, and arrays of numbers or booleans."""
    forms = [[array.dtype.str, array.shape] for array in arrays]
    header = json.dumps([content, forms]).encode()
    stream.write(len(header).to_bytes(8, "big") + header + b"".join(array.tobytes() for array in arrays))
    stream.flush()


def read_message(stream: BinaryIO) -> tuple[Any, list[np.ndarray]]:
    """The JSON values and arrays of the next message.

    Raises:
        EOFError: when the other side is gone.
    """
    content, forms = json.loads(_read(stream, int.from_bytes(_read(stream, 8), "big")))
    arrays = []
    for kind, shape in forms:
        dtype = np.dtype(kind)
        values = np.frombuffer(_read(stream, dtype.itemsize * int(np.prod(shape))), dtype)
        arrays.append(values.reshape(shape).copy())
    return content, arrays


def _read(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("the other side is gone")
    return data


# Benchmarks


def _package(module: str = "") -> Any:
    """Meta-World, which is imported when it is first asked for, or one of its modules."""
    return importlib.import_module(f"metaworld{module}")


def benchmark_tasks(name: str, train_envs: Sequence[str], test_envs: Sequence[str], seed: int) -> list[Any]:
    """The tasks of a benchmark's train and test split: pairs of an environment's name and its goals' vectors.

    name: a class of the package (ML10, MT50 ...), one with an environment's name (ML1-reach-v3), or ML-custom or
    MT-custom with the sets of environments.

    Raises:
        ValueError: for an environment that the package does not have.
    """
    metaworld = _package()

    kind, _, env = name.partition("-")
    for each in (*train_envs, *test_envs, *([env] if env not in ("", "custom") else [])):
        if each not in metaworld.ALL_V3_ENVIRONMENTS:
            near = difflib.get_close_matches(each, metaworld.ALL_V3_ENVIRONMENTS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"such as {next(iter(metaworld.ALL_V3_ENVIRONMENTS))}"
            raise ValueError(f"Meta-World has no environment {each!r}; {hint}")
    if env not in ("", "custom"):
        benchmarks = [getattr(metaworld, kind)(env, seed=seed)]
    elif kind == "ML" and env:
        benchmarks = [metaworld.CustomML(list(train_envs), list(test_envs), seed=seed)]
    elif kind == "MT" and env:
        benchmarks = [metaworld.MT1(each, seed=seed) for each in train_envs]
    else:
        benchmarks = [getattr(metaworld, kind)(seed=seed)]
    return [
        _by_env([task for benchmark in benchmarks for task in getattr(benchmark, f"{split}_tasks")])
        for split in ("train", "test")
    ]


def _by_env(tasks: Sequence[Any]) -> list[Any]:
    goals: dict[str, list[list[float]]] = {}
    for task in tasks:
        goals.setdefault(task.env_name, []).append(pickle.loads(task.data)["rand_vec"].tolist())
    return list(goals.items())


# Rows


class Row:
    """One row: its task, its environment and what its episode has shown so far."""

    def __init__(self) -> None:
        self.task: dict[str, Any] = {}
        self.env: Any = None
        self.num_steps = 0
        self.first_success: int | None = None  # the number of the step that first succeeded
        self.image: np.ndarray | None = None  # of the end that the last step led to
        self.is_watched = False

    def metrics(self, succeeded: bool) -> tuple[float, float, float]:
        """METRICS of an episode that is over."""
        first = self.first_success
        return float(first is not None), np.nan if first is None else float(first), float(succeeded)


class Rows:
    """G rows of Meta-World's environments, each in a task of its own.

    What an environment raises is caught: the row drops it, and the text is returned for the other side to decide.
    """

    def __init__(
        self, num_rows: int, env_names: Sequence[str], reward_version: str, hidden: bool, one_hot: bool, horizon: int
    ) -> None:
        """
        env_names: the environments of the tasks, in the order of their one-hot codes. hidden: whether observations
        have zeros in place of the goal.
        """
        self._rows = [Row() for _ in range(num_rows)]
        self._idle: dict[str, list[Any]] = {}  # environments that no row uses, by name
        self._policies: dict[str, Any] = {}  # the package's own, by the names of their environments
        self._reward_version, self._hidden, self._horizon = reward_version, hidden, horizon
        size = len(env_names) if one_hot else 0
        self._codes = {name: np.eye(size)[index] if size else np.zeros(0) for index, name in enumerate(env_names)}
        self._obs = np.zeros((num_rows, 39 + size), dtype=np.float32)

    def start_rows(self, rows: Sequence[int], tasks: Sequence[dict[str, Any]], seeds: Sequence[int]) -> list[Any]:
        """Give rows their tasks and start an episode in each: all observations [G, O], and errors as (row, text).

        Nothing is drawn by chance in a task whose vector is given, so the seeds are of no use.
        """
        errors = []
        for row, task in zip(rows, tasks, strict=True):
            try:
                self._assign(self._rows[row], task)
                self._begin(row)
            except Exception as error:
                errors.append((row, self._drop(row, error)))
        return [self._obs, errors]

    def step_rows(self, actions: np.ndarray, active: np.ndarray) -> list[Any]:
        """One step of the rows where `active` [G] is true, with actions [G, 4].

        Returns obs [G, O] to act on, next_obs [G, O] that the actions led to, reward [G], terminated [G], truncated
        [G], metrics [G, M] that are NaN but at the last step of an episode, and errors as (row, text).
        """
        num_rows = len(self._rows)
        next_obs, reward = self._obs.copy(), np.zeros(num_rows, dtype=np.float32)
        terminated, truncated = np.zeros(num_rows, dtype=bool), np.zeros(num_rows, dtype=bool)
        metrics = np.full((num_rows, len(METRICS)), np.nan, dtype=np.float32)
        errors = []
        for row in np.flatnonzero(active).tolist():
            state = self._rows[row]
            try:
                obs, reward[row], _, _, info = state.env.step(np.clip(actions[row], -1.0, 1.0))
                next_obs[row] = self._obs[row] = self._encoded(state, obs)
                state.num_steps += 1
                succeeded = bool(info["success"])
                if succeeded and state.first_success is None:
                    state.first_success = state.num_steps
                state.image = None
                if state.num_steps >= self._horizon:  # Meta-World's own episodes end by their time limit alone
                    truncated[row] = True
                    metrics[row] = state.metrics(succeeded)
                    state.image = state.env.render() if state.is_watched else None
                    self._begin(row)
            except Exception as error:
                errors.append((row, self._drop(row, error)))
        return [self._obs, next_obs, reward, terminated, truncated, metrics, errors]

    def scripted_actions(self) -> list[Any]:
        """What the package's own policies do now in each row, [G, 4]; they need a visible goal."""
        policies = _package(".policies").ENV_POLICY_MAP
        actions = np.zeros((len(self._rows), 4), dtype=np.float32)
        for action, state, obs in zip(actions, self._rows, self._obs, strict=True):
            name = state.task["env"]
            policy = self._policies.setdefault(name, policies[name]())
            action[:] = policy.get_action(obs[:39].astype(np.float64))
        return [np.clip(actions, -1.0, 1.0)]

    def image(self, row: int) -> list[Any]:
        """What the last step led to in a row, before any reset: an image [H, W, 3] and None, or None and an error."""
        state = self._rows[row]
        state.is_watched = True  # the end of an episode is only known to a row that is watched
        try:
            return [np.ascontiguousarray(state.env.render() if state.image is None else state.image), None]
        except Exception as error:  # such as a library that is not installed
            return [None, _text(error)]

    def _assign(self, state: Row, task: dict[str, Any]) -> None:
        name = task["env"]
        if state.env is None or state.task["env"] != name:
            if state.env is not None:
                self._idle.setdefault(state.task["env"], []).append(state.env)
            idle = self._idle.get(name)
            state.env = idle.pop() if idle else self._made(name)
        state.task = task
        vector, kind = np.array(task["vector"]), type(state.env)
        data = {"rand_vec": vector, "env_cls": kind, "partially_observable": self._hidden}
        state.env.set_task(_package(".types").Task(env_name=name, data=pickle.dumps(data)))

    def _made(self, name: str) -> Any:
        make = _package().ALL_V3_ENVIRONMENTS[name]
        return make(reward_function_version=self._reward_version, render_mode="rgb_array")

    def _begin(self, row: int) -> None:
        state = self._rows[row]
        self._obs[row] = self._encoded(state, state.env.reset()[0])
        state.num_steps, state.first_success = 0, None

    def _encoded(self, state: Row, obs: np.ndarray) -> np.ndarray:
        return np.concatenate([obs, self._codes[state.task["env"]]])

    def _drop(self, row: int, error: Exception) -> str:
        """Forget the row's environment; the error in one line."""
        self._rows[row] = Row()
        return _text(error)


def _text(error: Exception) -> str:
    """An error in one line, with its place."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    return f"{text} ({os.path.basename(frame.filename)}:{frame.lineno})"


# The loop


def _versions() -> dict[str, Any]:
    """What this interpreter is, once the package can be imported."""
    _package()  # for what it raises

    return {"protocol": PROTOCOL, "python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more; each is a name with arguments, among which None stands for an array."""
    rows: Rows | None = None
    while True:
        try:
            (method, asked), arrays = read_message(requests)
        except EOFError:
            return
        given = iter(arrays)
        arguments: list[Any] = [next(given) if argument is None else argument for argument in asked]
        try:
            if method == "versions":
                result: list[Any] = [_versions()]
            elif method == "benchmark_tasks":
                result = benchmark_tasks(*arguments)
            elif method == "make_rows":
                rows, result = Rows(*arguments), []
            else:
                result = getattr(rows, method)(*arguments)
        except Exception as error:
            own = isinstance(error, ValueError) and method == "benchmark_tasks"
            write_message(answers, {"error": str(error) if own else _text(error)})
            continue
        is_array = [isinstance(value, np.ndarray) for value in result]
        content = [None if array else value for array, value in zip(is_array, result, strict=True)]
        found = [value for value in result if isinstance(value, np.ndarray)]
        write_message(answers, {"result": content, "arrays": is_array}, found)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C the other side decides
    with os.fdopen(os.dup(1), "wb") as own_output:
        os.dup2(2, 1)
        serve(sys.stdin.buffer, own_output)
