"""metarl evaluate --grid: a table over settings that differ from training, with how hard the actions are."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium import spaces

import metarl
from agents.rl2 import RL2Config
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.navigation import Semicircle
from envs.wrappers import Delayed, Effort, Noisy
from experiments.experiment.definition import Experiment
from metarl.trainer import TrainConfig
from tests.experiments.command import run as command

POINT = Semicircle(horizon=4, dense=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    train = TrainConfig(num_iterations=1, num_tasks=2, eval_tasks=2)
    experiment = Experiment(POINT, RL2Config(hidden_size=4, head_sizes=(), num_epochs=1), train)
    path = tmp_path_factory.mktemp("grid") / "run"
    return metarl.train(experiment, run_dir=path, log=(), progress=False).path


def test_every_point_of_a_grid_is_an_evaluation_on_the_same_tasks(run, capsys):
    words = ("--grid", "family.obs-noise=0,0.5", "--grid", "family.action-delay=0,2", "--tasks", "5", "--json")
    status, output, errors = command(capsys, "evaluate", str(run), *words)
    assert status == 0, errors
    cells = json.loads(output)
    assert [cell["settings"] for cell in cells] == [
        {"family.obs_noise": noise, "family.action_delay": delay} for noise in (0, 0.5) for delay in (0, 2)
    ]
    assert len({cell["tasks_hash"] for cell in cells}) == 1
    assert len({cell["points"][-1]["mean"] for cell in cells}) == 4
    assert {"action_rate", "saturation"} <= set(cells[0]["metrics"])


def test_without_a_delay_measuring_the_effort_changes_nothing(run, capsys):
    words = ("evaluate", str(run), "--tasks", "5", "--json")
    plain = json.loads(command(capsys, *words)[1])
    prompt, late = json.loads(command(capsys, *words, "--grid", "family.action-delay=0,2")[1])
    assert prompt["points"] == plain["points"]
    assert prompt["tasks_hash"] == late["tasks_hash"] == plain["tasks_hash"]
    assert late["points"] != plain["points"]


def test_one_policy_runs_on_several_engines_side_by_side(tmp_path, capsys):
    from envs.locomotion.half_cheetah import HalfCheetahVel

    train = TrainConfig(num_iterations=1, num_tasks=2, eval_tasks=2)
    experiment = Experiment(HalfCheetahVel(horizon=4), RL2Config(hidden_size=4, head_sizes=(), num_epochs=1), train)
    path = str(metarl.train(experiment, run_dir=tmp_path / "run", log=(), progress=False).path)
    words = ("evaluate", path, "--tasks", "3", "--grid")
    status, output, errors = command(capsys, *words, "family.engine=mujoco,gymnasium")
    assert status == 0, errors
    rows = [line.split("│")[1:-1] for line in output.splitlines() if "mujoco " in line or "gymnasium " in line]
    assert [row[0].strip() for row in rows] == ["mujoco", "gymnasium"]
    assert rows[0][1:] == rows[1][1:]
    assert "power" in output
    status, _, errors = command(capsys, *words, "family.engine=mujoco,bullet")
    assert status == 2
    assert "family: engine is 'bullet'; must be one of mujoco, mujoco_warp, gymnasium" in errors


def test_a_field_of_the_family_itself_can_be_varied_and_the_table_is_saved(run, capsys):
    words = ("evaluate", str(run), "--grid", "family.horizon=2,4", "--tasks", "4")
    status, output, errors = command(capsys, *words)
    assert status == 0, errors
    assert "horizon" in output
    assert "saturation" in output
    saved = run / "sensitivity_test_4_horizon=2,4_s0.json"
    assert len(json.loads(saved.read_text())["cells"]) == 2
    assert saved.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["family.obs-nose=0,1"], "family.obs_nose is not a field: did you mean obs_noise?"),
        (["obs-noise=0"], "--grid is 'obs-noise=0'; must be family.FIELD=VALUE,VALUE,..."),
        (["family.obs-noise="], "must be family.FIELD=VALUE,VALUE,..."),
        (["family.horizon=2,x"], "family.horizon is 'x'"),
        (["family.obs-noise=-1"], "obs_noise is -1; must be zero or positive"),
        (["family.horizon=2"] * 3, "--grid is given 3 times; must be given once or twice"),
    ],
)
def test_a_mistake_in_a_grid_is_one_line(run, capsys, words, message):
    grid = [part for word in words for part in ("--grid", word)]
    status, output, errors = command(capsys, "evaluate", str(run), *grid, "--tasks", "2")
    assert status == 2
    assert message in errors
    assert errors.count("\n") == 1
    assert not output


def test_effort_counts_changes_and_bounds_of_actions_by_hand():
    family = Effort(POINT)
    assert family.name == POINT.name
    low, high = POINT.action_space.low, POINT.action_space.high
    env: Any = family.make_env(1, torch.Generator().manual_seed(0))
    tasks = family.sample(1, "test", torch.Generator().manual_seed(0))
    names = env.metric_names[-2:]
    assert names == ("action_rate", "saturation")
    half = torch.as_tensor(high - low) / 2
    middle = torch.as_tensor(high + low) / 2
    actions = [middle, middle + half, middle + half * torch.tensor([5.0, 0.0]), middle]
    assert env.reset(tasks).metrics[:, -2:].isnan().all()
    found = [env.step(action[None]).metrics[0, -2:] for action in actions]
    assert found[0][0].isnan()  # the first step of an episode has nothing before it
    torch.testing.assert_close(torch.stack(found)[1:, 0], torch.tensor([1.0, 0.5, 0.5]))
    torch.testing.assert_close(torch.stack(found)[:, 1], torch.tensor([0.0, 1.0, 0.5, 0.0]))
    assert env.step(middle[None]).metrics[0, -2].isnan()  # that of the next episode


def test_the_power_of_a_robot_is_that_of_its_actuators():
    from envs.locomotion.half_cheetah import HalfCheetahVel

    family = Effort(Delayed(Noisy(HalfCheetahVel(horizon=3), obs_noise=0.1), action_delay=0))
    env: Any = family.make_env(2, torch.Generator().manual_seed(0))
    env.reset(family.sample(2, "test", torch.Generator().manual_seed(0)))
    assert env.metric_names == ("velocity_error", "action_rate", "saturation", "power")
    idle = env.step(torch.zeros(2, 6)).metrics
    driven = env.step(torch.ones(2, 6)).metrics
    assert (idle[:, 3] == 0).all()
    assert (driven[:, 3] > 1).all()
    assert env.step(torch.ones(2, 6)).metrics[:, 3].isnan().all()  # the last step of an episode


def test_effort_needs_actions_with_bounds():
    assert isinstance(BernoulliBandit().action_space, spaces.Discrete)
    with pytest.raises(ValueError, match="must be numbers with bounds"):
        Effort(BernoulliBandit())
