# pyright: basic, reportMissingImports=false, reportOptionalSubscript=false, reportIncompatibleMethodOverride=false
"""A stand-in for the package of this name: its interface, around a hand that moves freely to a goal.

The same classes, methods and numbers as far as MetaRL uses them; no physics, and environments that differ in the number
of their vectors' entries alone. "crash-v3" raises in its third step, "exit-v3" ends its process and "hang-v3" hangs.
"""

import os
import pickle
import time

import numpy as np

from metaworld.types import Task


class _Env:
    name = ""
    vector_size = 6

    def __init__(self, reward_function_version="v2", render_mode=None):
        assert render_mode == "rgb_array"
        self._scale = {"v1": 1000.0, "v2": 10.0}[reward_function_version]
        self._vector = None
        self._hidden = True

    def set_task(self, task):
        data = pickle.loads(task.data)
        assert isinstance(self, data["env_cls"])
        assert task.env_name == self.name
        self._vector, self._hidden = data["rand_vec"], data["partially_observable"]
        assert self._vector.shape == (self.vector_size,)

    def reset(self):
        self._hand, self._steps = np.array([0.0, 0.6, 0.2]), 0
        self._before = self._hand
        return self._obs(), {}

    def step(self, action):
        assert np.abs(action).max() <= 1
        assert self._steps < 500, "You must reset the env manually once truncate==True"
        self._before, self._hand = self._hand, self._hand + 0.05 * np.asarray(action[:3], dtype=float)
        self._steps += 1
        distance = float(np.linalg.norm(self._hand - self._vector[-3:]))
        return self._obs(), self._scale / (1 + distance), False, self._steps == 500, {"success": float(distance < 0.05)}

    def render(self):
        return np.tile(np.arange(480, dtype=np.uint8)[:, None, None], (1, 480, 3))

    def _obs(self):
        goal = np.zeros(3) if self._hidden else self._vector[-3:]
        objects = np.concatenate([[1.0], self._vector[:3], np.zeros(11)])
        return np.concatenate([self._hand, objects, self._before, objects, goal])


class _Crash(_Env):
    def step(self, action):
        if self._steps == 2:
            raise RuntimeError("the arm fell off")
        return super().step(action)


class _Exit(_Env):
    def step(self, action):
        os._exit(3)


class _Hang(_Env):
    def step(self, action):
        time.sleep(60)


def _class(index, name):
    kind = {"crash-v3": _Crash, "exit-v3": _Exit, "hang-v3": _Hang}.get(name, _Env)
    return type(name, (kind,), {"name": name, "vector_size": 3 if index % 2 else 6})


_NAMES = ["reach-v3", "push-v3", "door-open-v3", "door-close-v3", "crash-v3", "exit-v3", "hang-v3"]
_NAMES += [f"task-{index}-v3" for index in range(43)]
ALL_V3_ENVIRONMENTS = {name: _class(index, name) for index, name in enumerate(_NAMES)}
globals().update(ALL_V3_ENVIRONMENTS)  # where pickle looks for them


def _tasks(names, hidden, seed):
    tasks = []
    for name in names:
        draws, kind = np.random.RandomState(seed), ALL_V3_ENVIRONMENTS[name]
        for _ in range(50):
            vector = draws.uniform(-0.1, 0.1, kind.vector_size) + np.resize([0.0, 0.7, 0.2], kind.vector_size)
            data = {"rand_vec": vector, "env_cls": kind, "partially_observable": hidden}
            tasks.append(Task(name, pickle.dumps(data)))
    return tasks


class _Benchmark:
    def __init__(self, train, test, hidden, seed, test_seed):
        self.train_tasks, self.test_tasks = _tasks(train, hidden, seed), _tasks(test, hidden, test_seed)


class ML1(_Benchmark):
    def __init__(self, name, seed):
        super().__init__([name], [name], True, seed, seed + 1)


class MT1(_Benchmark):
    def __init__(self, name, seed):
        super().__init__([name], [], False, seed, seed)


class CustomML(_Benchmark):
    def __init__(self, train, test, seed):
        super().__init__(train, test, True, seed, seed)


class ML10(_Benchmark):
    def __init__(self, seed):
        super().__init__(_NAMES[7:17], _NAMES[17:22], True, seed, seed)


class MT10(_Benchmark):
    def __init__(self, seed):
        super().__init__(_NAMES[7:17], [], False, seed, seed)
