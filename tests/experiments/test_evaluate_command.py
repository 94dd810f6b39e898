"""metarl evaluate on several runs at once: one table, one list, and each evaluation saved in its run."""

import json
from pathlib import Path

import pytest

import metarl
from agents.rl2 import RL2Config
from envs.torch_families.gridworld import GridNavi
from experiments.experiment.definition import Experiment
from metarl.trainer import TrainConfig
from tests.experiments.command import run as command

GRID = Experiment(
    GridNavi(size=3, horizon=4, num_episodes=2),
    RL2Config(hidden_size=4, head_sizes=(), num_epochs=1),
    TrainConfig(num_iterations=1, num_tasks=2, eval_tasks=2),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with two runs."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        metarl.train(GRID, seed=seed, run_dir=folder / f"s{seed}", log=(), progress=False)
    return folder


def test_several_runs_are_one_table_and_each_keeps_its_own_evaluation(folder, capsys):
    status, output, _ = command(capsys, "evaluate", str(folder / "s1"), str(folder / "s0"), "--tasks", "5")
    assert status == 0
    assert output.count("rl2 on grid_navi") == 2
    assert "worst 20 %" in output
    for seed in (0, 1):
        saved = json.loads((folder / f"s{seed}" / "evaluation_test_5x2_i1_s0.json").read_text())
        assert saved["training_seed"] == seed
        assert saved["speed"]["shares"] == pytest.approx(
            [
                (point["mean"] - low) / (high - low)
                for point, low, high in zip(
                    saved["points"], saved["bounds"]["random"], saved["bounds"]["oracle"], strict=True
                )
            ]
        )


def test_a_pattern_stands_for_its_runs_and_json_is_a_list(folder, capsys):
    words = ("evaluate", str(folder / "s*"), "--tasks", "5", "--json")
    found = json.loads(command(capsys, *words)[1])
    assert [one["training_seed"] for one in found] == [0, 1]
    assert found[0]["tasks_hash"] == found[1]["tasks_hash"]
    one = json.loads(command(capsys, "evaluate", str(folder / "s1"), "--tasks", "5", "--json")[1])
    assert one == found[1]


def test_nothing_is_evaluated_if_one_of_the_runs_is_not_there(folder, capsys):
    before = sorted(folder.glob("*/*"))
    status, _, errors = command(capsys, "evaluate", str(folder / "s0"), str(folder / "none"), "--tasks", "6")
    assert status == 2
    assert errors.startswith(f"metarl: there is no run at {folder / 'none'}")
    assert sorted(folder.glob("*/*")) == before
