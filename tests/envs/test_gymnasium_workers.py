"""Worker processes of third-party environments: what they know, how long they may take, and that they end."""

import gc
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.rl2 import RL2Config
from envs.external import CrashedTooOften
from envs.external.gymnasium_family import GymnasiumFamily
from envs.samplers import Choice, Uniform
from experiments.experiment.definition import Experiment, load
from metarl.errors import UserError
from metarl.trainer import TrainConfig

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers need not import the tests

ENVIRONMENT = """
import gymnasium
import numpy as np
import helpers
from gymnasium import spaces

class Drift(gymnasium.Env):
    observation_space = spaces.Box(-10, 10, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)
    push = 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), helpers.twice(self.push), False, False, {}

def make():
    return gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make("Drift-v0"))
"""

RECIPE = """
import gymnasium
from agents.rl2 import RL2Config
from envs.external.gymnasium_family import GymnasiumFamily
from envs.samplers import Choice
from experiments.experiment.definition import Experiment
from metarl.trainer import TrainConfig
{lines}
experiment = Experiment(
    GymnasiumFamily({env}, {{"push": Choice([3])}}, horizon=5, num_workers=1, name="drift"),
    RL2Config(),
    TrainConfig(num_iterations=1, num_tasks=1),
)
"""

HERE = ENVIRONMENT + 'gymnasium.register("Drift-v0", Drift, max_episode_steps=9)'
BY_PATH = ENVIRONMENT + 'gymnasium.register("Drift-v0", f"{__name__}:Drift", max_episode_steps=9)'


@pytest.fixture
def _no_drift() -> Iterator[None]:
    yield
    gymnasium.registry.pop("Drift-v0", None)


@pytest.mark.usefixtures("_no_drift")
@pytest.mark.parametrize(
    ("lines", "beside", "env"),
    [
        (HERE, "", '"Drift-v0"'),
        (BY_PATH, "", '"Drift-v0"'),
        (HERE, "", "make"),
        ("import world", HERE, '"Drift-v0"'),
        ("import world", BY_PATH, '"Drift-v0"'),
        ("", HERE, '"world:Drift-v0"'),
        ("import world", BY_PATH, "world.make"),
        ("from world import Drift", ENVIRONMENT, "Drift"),
    ],
    ids=["class", "path", "function", "import", "import_path", "prefix", "their_function", "their_class"],
)
def test_workers_know_what_a_recipe_and_the_modules_beside_it_register(lines, beside, env, tmp_path):
    (tmp_path / "helpers.py").write_text("def twice(x):\n    return 2 * x\n")
    (tmp_path / "world.py").write_text(beside)
    (tmp_path / "recipe.py").write_text(RECIPE.format(lines=lines, env=env))
    rows = load(str(tmp_path / "recipe.py")).family
    made = rows.make_env(1, generator())
    made.reset(rows.sample(1, "train", generator()))
    assert (made.step(torch.zeros(1, 1)).reward.tolist(), made.num_diverged) == ([6], 0)
    made.close()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class OnlyHere:
    """Makes an environment, in this process alone."""

    def __init__(self, pid: int) -> None:
        assert pid == os.getpid()
        self.pid = pid

    def __call__(self) -> Any:
        return gymnasium.make("Pendulum-v1")

    def __reduce__(self) -> Any:
        return OnlyHere, (self.pid,)


def test_a_worker_that_does_not_start_is_one_line():
    family = GymnasiumFamily(OnlyHere(os.getpid()), {"g": Uniform(5, 15)}, horizon=3, num_workers=1, name="here")
    experiment = Experiment(family, RL2Config(), TrainConfig(num_iterations=1, num_tasks=1))
    with pytest.raises(UserError, match=r"^here: its worker process ended with exit code 1 before it was ready; num"):
        experiment.trainer()


# Environments that hang


class Stuck(gymnasium.Env[Any, Any]):
    """Hangs for good in the step `hang_at`; in `reset` if that is negative."""

    observation_space: Any = spaces.Box(-1, 1, (1,), np.float32)
    action_space: Any = spaces.Box(-1, 1, (1,), np.float32)
    hang_at = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.clock = 0
        if self.hang_at < 0:
            hang()
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.clock += 1
        if self.clock == self.hang_at:
            hang()
        return np.full(1, self.clock / 10, np.float32), 1.0, False, False, {"clock": self.clock}


def hang() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as some simulators do
    time.sleep(1000)


def stuck(step_timeout: float | None = 0.5, **settings: Any) -> GymnasiumFamily:
    tasks = {"hang_at": Choice([0], ood=[2, 3, -1])}
    return GymnasiumFamily(Stuck, tasks, horizon=4, num_workers=1, step_timeout=step_timeout, **settings)


def tasks_of(family: GymnasiumFamily, *hang_at: float) -> Any:
    record: Any = type(family.sample(1, "train", generator()))
    return record(hang_at=torch.tensor(hang_at))


def test_a_row_that_hangs_is_named_and_costs_its_process_their_episodes(caplog):
    family = stuck()
    env = family.make_env(2, generator())
    env.reset(tasks_of(family, 0, 3))
    steps = []
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            steps.append(env.step(torch.zeros(2, 1)))
    assert [step.truncated.tolist() for step in steps[:3]] == [[False, False], [False, False], [True, True]]
    assert steps[2].metrics.tolist() == [[2.0], [2.0]]  # of the step before
    assert caplog.messages[0].startswith(
        "Stuck: row 1 crashed: no answer within 0.5 s (step_timeout). It starts afresh"
    )
    assert caplog.messages[0].endswith("Task: hang_at=3")
    assert steps[3].reward.tolist() == [1, 1]
    env.close()


def test_an_environment_that_always_hangs_stops_the_training():
    family = stuck(max_crashes=2)
    env = family.make_env(1, generator())
    with pytest.raises(CrashedTooOften, match=r"row 0 crashed 2 times .+ no answer within 0.5 s .+ Task: hang_at=-1"):
        env.reset(tasks_of(family, -1))
    env.close()


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_time_limit_is_positive(value):
    with pytest.raises(ValueError, match=r"step_timeout is .+; must be positive and finite"):
        stuck(value)


OWNER = """
import signal, time, gymnasium, numpy, torch
from envs.external.gymnasium_family import GymnasiumFamily
from envs.samplers import Choice
signal.signal(signal.SIGINT, signal.default_int_handler)  # which what is started in the background is without

class Stuck(gymnasium.Env):
    observation_space = action_space = gymnasium.spaces.Box(-1, 1, (1,), numpy.float32)
    hangs = 0

    def reset(self, **arguments):
        return numpy.zeros(1, numpy.float32), {}

    def step(self, action):
        if self.hangs:
            time.sleep(1000)
        return numpy.zeros(1, numpy.float32), 0.0, False, False, {}

family = GymnasiumFamily(Stuck, {"hangs": Choice([0], ood=[1])}, horizon=9, num_workers=2, step_timeout=None)
generator = torch.Generator().manual_seed(0)
env = family.make_env(2, generator)
env.reset(family.sample(2, "ood", generator))
print([holder.processes[0].pid for holder in env._holders], flush=True)
env.step(torch.zeros(2, 1))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_survives_its_owner_even_one_that_hangs(number):
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, process_group=0
    ) as owner:
        assert owner.stdout is not None
        pids = json.loads(owner.stdout.readline())
        time.sleep(0.2)  # until they hang
        (os.killpg if number == signal.SIGINT else os.kill)(owner.pid, number)  # Ctrl-C reaches the whole group
        try:
            owner.wait(timeout=20)
        finally:
            owner.kill()  # or leaving this block would wait without end
    assert wait_for_end(pids) == []


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] not in "ZX"


def wait_for_end(pids: list[int]) -> list[int]:
    """The processes that are still there after a while."""
    for _ in range(100):
        if not any(map(alive, pids)):
            return []
        time.sleep(0.05)
    return [pid for pid in pids if alive(pid)]


def pendulum(num_workers: int) -> GymnasiumFamily:
    return GymnasiumFamily("Pendulum-v1", {"g": Uniform(5, 15)}, horizon=6, num_workers=num_workers)


@pytest.mark.parametrize("end", ["close", "collect"])
def test_no_worker_is_left(end):
    env: Any = pendulum(2).make_env(2, generator())
    pids = [holder.processes[0].pid for holder in env._holders]
    assert all(map(alive, pids))
    if end == "close":
        env.close()
        env.close()
    else:
        del env
        gc.collect()
    assert wait_for_end(pids) == []


def test_ctrl_c_is_for_the_owner_alone():
    env: Any = pendulum(1).make_env(1, generator())
    env.reset(pendulum(1).sample(1, "train", generator()))
    os.kill(env._holders[0].processes[0].pid, signal.SIGINT)
    time.sleep(0.1)
    env.step(torch.zeros(1, 1))
    assert env.num_diverged == 0
