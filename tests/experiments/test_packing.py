"""Packed agents: they score and act as in their run, from an archive or by name; the shipped ones as on their cards."""

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metarl
from agents.pearl import PEARLConfig
from agents.promp import ProMPConfig
from agents.rl2 import RL2Config
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.navigation import PointNavigation
from experiments.cli.commands import pack
from experiments.experiment.definition import Experiment
from experiments.experiment.names import experiment_names, trained_agents
from experiments.experiment.opening import open_run
from metarl.errors import UserError
from metarl.fewshot.images.omniglot import Omniglot
from metarl.fewshot.methods.maml import MAMLConfig
from metarl.fewshot.regression import Sinusoid
from metarl.run.archive import PackedRun
from metarl.run.directory import Run
from metarl.trainer import TrainConfig
from tests.experiments.command import run as command

TRAIN = TrainConfig(num_iterations=2, num_tasks=3, eval_tasks=3, checkpoint_every=1)
PEARL = PEARLConfig(
    hidden_sizes=(8,),
    encoder_sizes=(8,),
    num_train_tasks=3,
    initial_episodes=2,
    capacity=100,
    num_gradient_steps=2,
    meta_batch=2,
    batch=8,
    context=8,
)
EXPERIMENTS: dict[str, Experiment[Any, Any]] = {
    "rl2": Experiment(GridNavi(size=3, horizon=4), RL2Config(hidden_size=8, head_sizes=(), num_epochs=1), TRAIN),
    "promp": Experiment(PointNavigation(horizon=5), ProMPConfig(hidden_sizes=(8,), num_rollouts=2), TRAIN),
    "pearl": Experiment(PointNavigation(horizon=5), PEARL, TRAIN),
    "maml": Experiment(Sinusoid(), MAMLConfig(hidden_sizes=(8,)), TRAIN),
}


@pytest.fixture(scope="module", params=EXPERIMENTS)
def run(request, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp(request.param) / "run"
    return metarl.train(EXPERIMENTS[request.param], run_dir=folder, log=(), progress=False)


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Path:
    """The archive of an RL2 agent."""
    folder = tmp_path_factory.mktemp("grid")
    run = metarl.train(EXPERIMENTS["rl2"], run_dir=folder / "run", log=(), progress=False)
    pack.main([str(run.path), "--out", str(folder / "grid.zip"), "--tasks", "3", "--licence", "MIT"])
    return folder / "grid.zip"


def changed(archive: Path, to: Path, member: str, content: bytes) -> Path:
    """A copy of an archive in which one member is another."""
    with zipfile.ZipFile(archive) as file:
        members = {name: file.read(name) for name in file.namelist()} | {member: content}
    with zipfile.ZipFile(to, "w") as file:
        for name, text in members.items():
            file.writestr(name, text)
    return to


def test_a_packed_agent_scores_as_the_checkpoint_of_its_run(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, output, _ = command(capsys, "pack", str(run.path), "--tasks", "3", "--out", "agent.zip")
    assert status == 0
    assert "Archive: agent.zip" in output
    of_run = metarl.evaluate(run, tasks=4, checkpoint="best")
    of_archive = metarl.evaluate("agent.zip", tasks=4)
    assert of_archive.per_task == of_run.per_task
    assert "MIT" not in PackedRun(Path("agent.zip")).card
    assert [path.name for path in tmp_path.iterdir()] == ["agent.zip"]


def test_an_archive_is_evaluated_by_the_command_which_saves_in_the_working_directory(
    grid, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    status, output, _ = command(capsys, "evaluate", str(grid), "--tasks", "3", "--per-task", "csv")
    assert status == 0
    saved = tmp_path / "runs" / "packed" / "grid"
    assert f"Saved: {saved.relative_to(tmp_path)}" in output
    evaluation = json.loads(next(saved.glob("*.json")).read_text())
    assert evaluation["checkpoint"] == "best"
    assert {path.suffix for path in saved.iterdir()} == {".json", ".csv", ".png"}
    packed = PackedRun(grid).evaluation("test")
    assert evaluation["points"] == packed["points"]


def test_an_archive_is_played(grid, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, output, _ = command(capsys, "play", str(grid), "--episodes", "1")
    assert status == 0
    assert "Video:       runs/packed/grid/videos/test_s0.mp4" in output
    assert (tmp_path / "runs/packed/grid/videos/test_s0.mp4").stat().st_size > 0


def test_an_archive_is_not_resumed_and_not_packed_again(grid, capsys):
    for name in ("resume", "pack"):
        status, _, errors = command(capsys, name, str(grid))
        assert status == 2
        assert len(errors.splitlines()) == 1
        assert re.search("cannot be resumed|is packed already", errors)


def test_the_card_says_where_the_agent_comes_from_and_what_it_scores(grid):
    run = PackedRun(grid)
    card, evaluation = run.card, run.evaluation("test")
    for row in ("| licence | MIT |", "| training seed | 0 |", "| checkpoint | best, of iteration"):
        assert row in card
    assert f"{evaluation['points'][0]['mean']:.4g}" in card
    assert "## Limits" in card
    assert "--run-dir" not in card


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda array: array[:-1], r"state.json does not fit .*config.json: agent\.net\..* has shape \[\d"),
        (lambda array: np.full_like(array, np.nan), r"does not fit .*: agent\.net\.\S+ is not a number"),
        (lambda array: array.astype("f8"), r"agent\.net\.\S+ is float64 and strided; must be float32"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(grid, tmp_path, capsys, spoil, message):
    with zipfile.ZipFile(grid) as file:
        member = next(name for name in file.namelist() if re.match(r"tensors/agent\.net\..*weight", name))
        weights = np.load(io.BytesIO(file.read(member)))
    buffer = io.BytesIO()
    np.save(buffer, spoil(weights))
    other = changed(grid, tmp_path / "other.zip", member, buffer.getvalue())
    status, _, errors = command(capsys, "evaluate", str(other), "--tasks", "2")
    assert status == 2
    assert len(errors.splitlines()) == 1
    assert re.search(message, errors)


def test_an_archive_that_names_a_recipe_runs_none(grid, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("evil.py").write_text("from pathlib import Path\nPath('mark').touch()\n")
    config = PackedRun(grid).config()
    config |= {"experiment": "evil.py", "family": {**config["family"], "class": "evil:Family"}}
    other = changed(grid, tmp_path / "other.zip", "config.json", json.dumps(config).encode())
    status, _, errors = command(capsys, "evaluate", str(other))
    assert status == 2
    assert "needs code that you have not run here" in errors
    assert not Path("mark").exists()


def test_a_run_of_a_recipe_of_ones_own_is_packed_without_the_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("secret_folder").mkdir()
    Path("secret_folder/own.py").write_text(
        "'''Own.'''\nfrom dataclasses import dataclass\nfrom agents.rl2 import RL2Config\n"
        "from envs.torch_families.bandits import BernoulliBandit\nfrom experiments import Experiment, TrainConfig\n\n\n"
        "@dataclass(frozen=True)\nclass Bandit(BernoulliBandit):\n    pass\n\n\n"
        "experiment = Experiment(Bandit(num_pulls=2), RL2Config(hidden_size=4, head_sizes=(), num_epochs=1), "
        "TrainConfig(1, 2, eval_tasks=2))\n"
    )
    run = metarl.train("secret_folder/own.py", run_dir="run", log=(), progress=False)
    assert command(capsys, "pack", str(run.path), "--tasks", "2", "--out", "own.zip")[0] == 0
    with zipfile.ZipFile("own.zip") as file:
        assert not any(b"secret_folder" in file.read(name) for name in file.namelist() if name == "config.json")
    status, _, errors = command(capsys, "evaluate", "own.zip", "--tasks", "2")
    assert (status, len(errors.splitlines())) == (2, 1)
    words = ("evaluate", "own.zip", "--tasks", "2", "--recipe", "secret_folder/own.py", "--json")
    assert command(capsys, *words)[0] == 0


# The agents that come with MetaRL


def test_a_name_that_is_no_run_lists_the_trained_agents(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"there is no run at grid_navi/nothing: .*come with MetaRL: grid_navi/rl2"):
        open_run("grid_navi/nothing")
    Path("grid_navi/rl2").mkdir(parents=True)
    with pytest.raises(UserError, match=r"grid_navi/rl2 is not a run"):  # a directory comes first
        open_run("grid_navi/rl2")


def test_the_trained_agents_are_small_and_of_our_experiments():
    agents = trained_agents()
    assert len(agents) == 6
    assert set(agents) <= set(experiment_names())
    for path in agents.values():
        assert path.stat().st_size < 1_000_000
        assert path.with_suffix(".md").read_text() == PackedRun(path).card


@pytest.mark.parametrize("name", trained_agents())
def test_a_trained_agent_scores_as_its_card_says(name):
    packed = open_run(name)
    assert isinstance(packed, PackedRun)
    has_images = packed.config()["family"]["class"].endswith(":Omniglot")
    if has_images:
        try:
            Omniglot().check_data()
        except ValueError:
            pytest.skip("the images are not here")
    on_card = packed.evaluation("test")
    evaluation = metarl.evaluate(name, tasks=12 if has_images else 60)
    for index in (0, -1):
        now, before = evaluation.points[index], on_card["points"][index]
        half = (now.ci95[1] - now.ci95[0]) / 2 + (before["ci95"][1] - before["ci95"][0]) / 2
        assert abs(now.mean - before["mean"]) < 1.5 * half + 1e-3
    assert evaluation.gain is not None
    assert evaluation.gain.ci95[0] > 0
