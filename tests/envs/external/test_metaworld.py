"""Meta-World: its tasks, what its rows count, and processes of another interpreter that fail in any way.

All but the last tests run on the stand-in of stand_in/metaworld, in an "interpreter" that has it.
"""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from envs.external import CrashedTooOften
from envs.external.metaworld import worker
from envs.external.metaworld.family import Metaworld
from envs.external.metaworld.interpreter import VARIABLE, find_python, python_in
from envs.external.metaworld.process import MetaworldProcess
from envs.external.workers import WorkerDied
from envs.wrappers import TimeAware
from experiments.cli.session import new_run
from experiments.recipes.metaworld.rl2 import experiment
from metarl.errors import UserError
from metarl.run.directory import Run
from tests.envs.external.metaworld_rows import check_disjoint, generator, make, pairs

# Messages


def test_messages_come_back_as_they_were() -> None:
    stream = io.BytesIO()
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array([True, False]), np.zeros((0, 4))]
    worker.write_message(stream, ["step", [1, None, {"a": 0.1}]], arrays)
    stream.seek(0)
    content, read = worker.read_message(stream)
    assert content == ["step", [1, None, {"a": 0.1}]]
    for one, other in zip(read, arrays, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    with pytest.raises(EOFError):
        worker.read_message(stream)


def test_the_worker_needs_numpy_and_the_standard_library_alone() -> None:
    lines = Path(worker.__file__).read_text().splitlines()
    imports = [line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))]
    assert "numpy" in imports
    assert not {"torch", "metarl", "envs", "gymnasium", "metaworld"} & set(imports)


# Fields


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"benchmark": "ML11"}, "benchmark is 'ML11'; must be ML1-<env> or MT1-<env> with a name such as reach-v3, or"),
        ({"benchmark": "ML1-reach"}, "benchmark is 'ML1-reach'; must be"),
        ({"reward_version": "v3"}, "reward_version is 'v3'; must be one of v1, v2"),
        ({"horizon": 501}, "horizon is 501; must be at most 500"),
        ({"num_workers": 0}, "num_workers is 0; must be at least 1"),
        ({"benchmark": "ML-custom"}, r"train_envs is \(\); must name environments for benchmark ML-custom"),
        ({"train_envs": ("push-v3",)}, r"train_envs is \('push-v3',\); must be empty for benchmark ML1-reach-v3"),
        (
            {"benchmark": "ML-custom", "train_envs": ("push-v3",), "test_envs": ("push-v3",)},
            "test_envs has 'push-v3', which train_envs has too",
        ),
        ({"benchmark": "MT-custom", "train_envs": ("push-v3",) * 2}, "must name each environment once"),
    ],
)
def test_wrong_fields_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Metaworld(**fields)


def test_an_unknown_environment_gets_a_hint() -> None:
    with pytest.raises(ValueError, match=r"Meta-World has no environment 'raech-v3'; did you mean reach-v3\?"):
        Metaworld("ML1-raech-v3").sample(1, "train", generator())


# Tasks


def test_no_goal_of_the_test_tasks_is_one_of_training() -> None:
    check_disjoint(Metaworld("ML1-reach-v3"))
    check_disjoint(Metaworld("ML10"))


def test_environments_and_goals_are_drawn_in_equal_numbers() -> None:
    tasks = Metaworld("ML10").sample(43, "train", generator())
    counts = torch.bincount(tasks.env, minlength=10)
    assert counts.sum() == 43
    assert (counts.min(), counts.max()) == (4, 5)
    every = Metaworld("ML10").sample(10 * 100, "train", generator())
    assert torch.equal(torch.bincount(every.env * 50 + every.goal), torch.full((500,), 2))


def test_another_seed_of_the_benchmark_has_other_goals() -> None:
    first, again, other = (Metaworld(benchmark_seed=seed).sample(50, "train", generator()) for seed in (3, 3, 5))
    assert torch.equal(first.vector, again.vector)
    assert not set(map(tuple, first.vector.tolist())) & set(map(tuple, other.vector.tolist()))


def test_a_vector_is_as_long_as_its_environment_wants_it() -> None:
    env, tasks = make(Metaworld("MT10"), 10)
    assert {env.startswith("task") for env in Metaworld("MT10").groups(tasks)} == {True}
    env.reset(tasks)  # the stand-in checks the vector's size
    assert env.num_diverged == 0


def test_multi_task_benchmarks_are_tested_on_the_tasks_of_training() -> None:
    train, test = (Metaworld("MT1-push-v3").sample(50, split, generator()) for split in ("train", "test"))
    assert sorted(pairs(train)) == sorted(pairs(test))


# Observations


def test_the_goal_is_hidden_from_meta_learners_and_shown_to_multi_task_ones() -> None:
    for name, is_hidden in (("ML1-reach-v3", True), ("MT1-reach-v3", False)):
        env, tasks = make(Metaworld(name))
        step = env.reset(tasks)
        goal = torch.zeros(4, 3) if is_hidden else tasks.vector[:, -3:].float()
        assert torch.equal(step.obs[:, 36:], goal)
        assert torch.equal(env.step(torch.zeros(4, 4)).next_obs[:, 36:], goal)


def test_a_one_hot_code_tells_multi_task_environments_apart() -> None:
    family = Metaworld("MT-custom", train_envs=("push-v3", "reach-v3", "door-open-v3"))
    env, tasks = make(family, 3)
    assert env.observation_space.shape == (42,)
    assert torch.equal(env.reset(tasks).obs[:, 39:], torch.eye(3)[tasks.env])
    assert family.groups(tasks) == [("push-v3", "reach-v3", "door-open-v3")[index] for index in tasks.env]
    without = Metaworld("MT10", one_hot=False)
    assert without.observation_space.shape == (39,)
    assert make(without, 2)[0].reset(without.sample(2, "train", generator())).obs.shape == (2, 39)


# What is counted


def test_each_episode_tells_whether_and_when_it_succeeded() -> None:
    env, tasks = make(Metaworld("MT1-reach-v3", horizon=8))
    step = env.reset(tasks)
    names = ("success_reward_v2", "steps_to_success_reward_v2", "last_step_success_reward_v2")
    assert env.metric_names == names
    assert Metaworld(reward_version="v1").metric_names[0] == "success_reward_v1"
    to_goal = (tasks.vector[:, -3:].float() - step.obs[:, :3]).norm(dim=1, p=torch.inf)
    for number in range(1, 9):
        action = env.scripted_action()
        action[1] = 0.0  # this row stays
        action[2] = torch.tensor([0.0, 0.0, 1.0, 0.0]) if number > 6 else action[2]  # and this one goes away again
        step = env.step(action)
        assert step.metrics is not None
        assert bool(step.metrics.isnan().all()) == (number < 8)
    assert step.truncated.all()
    assert not step.terminated.any()
    assert step.metrics is not None
    assert step.metrics[:, 0].tolist() == [1, 0, 1, 1]
    assert step.metrics[:, 2].tolist() == [1, 0, 0, 1]
    expected = (to_goal / 0.05).ceil()  # the stand-in's hand moves .05 per step, and success is within .05
    assert (expected - step.metrics[:, 1])[[0, 2, 3]].abs().max() <= 1
    assert step.metrics[1, 1].isnan()


def test_the_number_of_workers_changes_nothing() -> None:
    def play(num_workers: int) -> torch.Tensor:
        env, tasks = make(Metaworld("ML10", num_workers=num_workers, horizon=5), 5)
        env.reset(tasks)
        draws = generator(1)
        steps = [env.step(torch.rand(5, 4, generator=draws) * 3 - 1.5) for _ in range(7)]
        return torch.stack([torch.cat([step.obs, step.next_obs, step.reward[:, None]], -1) for step in steps])

    assert torch.equal(play(1), play(3))


# Failures


def only(name: str) -> Metaworld:
    return Metaworld(f"ML1-{name}", num_workers=1, max_crashes=2, step_timeout=0.3)


def test_a_crash_costs_the_row_its_episode(caplog: pytest.LogCaptureFixture) -> None:
    env, tasks = make(only("crash-v3"), 2)
    env.reset(tasks)
    for number in range(3):
        step = env.step(torch.zeros(2, 4))
        assert step.truncated.tolist() == [number == 2] * 2
    assert env.num_diverged == 2
    assert "row 0 crashed: RuntimeError: the arm fell off (__init__.py:" in caplog.text
    assert "Task: env=crash-v3, vector=[" in caplog.text


@pytest.mark.parametrize(
    ("name", "reason"),
    [("exit-v3", "its worker process ended with exit code 3"), ("hang-v3", "no answer within 0.6 s")],
)
def test_a_worker_that_is_gone_is_replaced_until_it_is_too_much(name: str, reason: str) -> None:
    env, tasks = make(only(name), 2)
    env.reset(tasks)
    assert env.step(torch.zeros(2, 4)).truncated.all()
    with pytest.raises(CrashedTooOften, match=f"crashed 2 times in succession, the last time with: {reason}"):
        env.step(torch.zeros(2, 4))


@pytest.mark.parametrize("wrap", [lambda family: family, TimeAware], ids=["plain", "wrapped"])
def test_a_run_notes_the_versions_of_the_other_interpreter(tmp_path: Path, wrap: Any) -> None:
    new_run(replace(experiment, family=wrap(experiment.family)), "metaworld/rl2", tmp_path / "run", ["metarl", "train"])
    noted = Run.open(tmp_path / "run").meta()["family_versions"]
    assert noted["metaworld"] == "3.1.1"
    assert set(noted) == {"python", *worker.PACKAGES}


def test_workers_end_with_their_environment() -> None:
    env, tasks = make(Metaworld(num_workers=2))
    env.reset(tasks)
    processes = [holder.process for holder in env._holders]  # pyright: ignore[reportAttributeAccessIssue]
    assert [process.poll() for process in processes] == [None, None]
    env.close()
    assert [process.poll() for process in processes] == [0, 0]


def test_without_an_interpreter_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(UserError, match=f"{VARIABLE} is '.*absent'; must be the path of a Python interpreter"):
        Metaworld().sample(1, "train", generator())
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match="metarl setup metaworld makes it"):
        Metaworld().sample(1, "train", generator())
    made = python_in(tmp_path / "metarl" / "metaworld")
    made.parent.mkdir(parents=True)
    made.touch()
    assert find_python() == made


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo No module named metaworld >&2; exit 1", "ended with exit code 1: No module named metaworld"),
        ("PYTHONPATH= exec {python} $@", "ModuleNotFoundError: No module named 'metaworld'"),
    ],
)
def test_an_interpreter_that_does_not_do_is_refused_in_one_line(tmp_path: Path, script: str, reason: str) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script.format(python=sys.executable)}\n")
    python.chmod(0o755)
    with pytest.raises(WorkerDied, match=reason):
        MetaworldProcess(python)
