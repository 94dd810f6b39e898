"""Meta-World on the command line: its interpreter, training on the stand-in, and the benchmark of scripted policies."""

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from agents.rl2 import RL2Config
from envs.external.metaworld.family import Metaworld
from envs.external.metaworld.interpreter import VARIABLE, python_in
from experiments import Experiment
from experiments.benchmarks import metaworld as benchmark
from experiments.cli.commands import doctor
from experiments.cli.tables import print_evaluation
from metarl.trainer import TrainConfig
from tests.experiments.command import run


def interpreter(folder: Path, pip: str) -> Path:
    """A virtual environment whose pip does what a line of shell says, and whose Python is the stand-in's."""
    python = python_in(folder)
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nif [ "$2" = pip ]; then {pip}; fi\nexec "{os.environ[VARIABLE]}" "$@"\n')
    python.chmod(0o755)
    return python


def test_setup_says_what_it_made_and_how_to_use_it(capsys, tmp_path):
    python = interpreter(tmp_path / "mw", f"echo $@ >> {tmp_path}/pip; exit 0")
    for _ in range(2):
        status, output, errors = run(capsys, "setup", "metaworld", "--folder", str(tmp_path / "mw"))
        assert status == 0, errors
        assert "metaworld 3.1.1 with mujoco" in output
        assert f"export {VARIABLE}={python}" in output
    assert (tmp_path / "pip").read_text().splitlines() == ["-m pip install --quiet metaworld==3.1.1 packaging"] * 2


@pytest.mark.parametrize(
    ("pip", "message"),
    [
        ("echo 'ERROR: No matching distribution' >&2; exit 1", "pip cannot install metaworld==3.1.1: ERROR: No match"),
        ("exit 7", "pip cannot install metaworld==3.1.1: exit status 7"),
    ],
)
def test_setup_that_fails_says_why_in_one_line(capsys, tmp_path, pip, message):
    interpreter(tmp_path / "mw", pip)
    status, _, errors = run(capsys, "setup", "metaworld", "--folder", str(tmp_path / "mw"))
    assert status == 2
    assert message in errors
    assert errors.count("\n") == 1


def test_setup_needs_a_folder_that_can_be_one(capsys, tmp_path):
    (tmp_path / "file").touch()
    status, _, errors = run(capsys, "setup", "metaworld", "--folder", str(tmp_path / "file" / "mw"))
    assert status == 2
    assert f"no virtual environment can be made in {tmp_path / 'file' / 'mw'}: " in errors
    assert errors.count("\n") == 1


def test_the_doctor_tells_of_the_interpreter(monkeypatch, tmp_path):
    for name in ("_versions", "_devices", "_rendering", "_speed"):
        monkeypatch.setattr(doctor, name, lambda: "skipped")
    assert doctor.main([]) == 0
    assert doctor._metaworld().startswith("metaworld 3.1.1, mujoco ")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "absent"))
    assert "must be the path of a Python interpreter that has metaworld" in doctor._metaworld()
    assert doctor.main([]) == 0  # nobody needs Meta-World


def test_an_agent_trains_and_its_success_is_told_by_episode_and_environment():
    sets = {"train_envs": ("reach-v3",), "test_envs": ("push-v3", "door-open-v3")}
    family = Metaworld("ML-custom", **sets, horizon=3, num_episodes=2)
    agent, train = RL2Config(hidden_size=4, head_sizes=()), TrainConfig(num_iterations=1, num_tasks=2, eval_tasks=4)
    trainer = Experiment(family, agent, train).trainer()
    metrics = trainer.iterate()
    assert metrics["meta_train/success_reward_v2/ep_2"] == 0
    evaluation = trainer.evaluate()
    assert evaluation.metrics["success_reward_v2"] == [0, 0]
    assert evaluation.as_json()["metrics"]["steps_to_success_reward_v2"] == [None, None]
    assert evaluation.per_task is not None
    assert sorted(evaluation.per_task.groups) == ["door-open-v3", "door-open-v3", "push-v3", "push-v3"]
    output = io.StringIO()
    print_evaluation(evaluation, console=Console(file=output))
    table = output.getvalue().partition("by kind of task")[2]
    assert "success-reward-v2, episode 2" in table
    assert "door-open-v3" in table


def test_scripted_policies_are_counted_in_every_environment():
    counted, speed = benchmark.run(benchmark.Settings("MT10", num_goals=2, horizon=12))
    assert len(counted) == 10
    assert {one.success for one in counted.values()} == {1.0}
    assert all(1 <= one.steps_to_success <= 12 for one in counted.values())
    assert speed > 0
    with pytest.raises(ValueError, match="num_goals is 51; must be at most 50"):
        benchmark.Settings(num_goals=51)
