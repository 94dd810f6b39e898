"""Runs whose files were damaged or edited: one line that says what is wrong, and everything saved left as it was."""

import csv
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.cli.main import main
from metarl.run.directory import STEP_TAG, Run

RECIPE = """
from agents.rl2 import RL2Config
from envs.torch_families.gridworld import GridNavi
from experiments.experiment.definition import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=GridNavi(size=3, horizon=2, num_episodes=2),
    agent=RL2Config(hidden_size=8, head_sizes=(), num_epochs=1, num_minibatches=1),
    train=TrainConfig(num_iterations=4, num_tasks=2, eval_every=0, eval_tasks=2, checkpoint_every=2),
)
"""

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six iterations that was stopped after its fourth."""
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "recipe.py").write_text(RECIPE)
    with pytest.raises(SystemExit) as stop:
        main(["train", str(folder / "recipe.py"), "--run-dir", str(folder / "run")])
    assert not stop.value.code
    edit_config("train", num_iterations=6)(folder / "run")
    for file in (folder / "run").glob("evaluation*"):
        file.unlink()
    return folder / "run"


@pytest.fixture
def run(stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()  # what the training has printed
    return Path(shutil.copytree(stopped, "run"))


def edit_config(part: str, **fields: Any) -> Damage:
    def edit(run: Path) -> None:
        config = json.loads((run / "config.json").read_text())
        config[part].update(fields)
        (run / "config.json").write_text(json.dumps(config))

    return edit


def without(part: str) -> Damage:
    def edit(run: Path) -> None:
        config = json.loads((run / "config.json").read_text())
        del config[part]
        (run / "config.json").write_text(json.dumps(config))

    return edit


def write(name: str, content: bytes) -> Damage:
    return lambda run: (run / name).write_bytes(content)


def cut(name: str, size: int) -> Damage:
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[:-size])


def append(name: str, content: bytes) -> Damage:
    return lambda run: (run / name).write_bytes((run / name).read_bytes() + content)


def folder_for(name: str) -> Damage:
    def replace(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).mkdir()

    return replace


LATEST = "checkpoints/latest.pt"


def checkpoint(content: Any) -> Damage:
    return lambda run: torch.save(content, run / LATEST)


def edit_checkpoint(**fields: Any) -> Damage:
    return lambda run: torch.save({**torch.load(run / LATEST, weights_only=True), **fields}, run / LATEST)


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a command line ends in."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    errors = capsys.readouterr().err
    assert stop.value.code == 2
    assert errors.count("\n") == 1
    return errors


def files(run: Path) -> Mapping[str, bytes]:
    return {str(path): path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("command", ["resume", "evaluate", "play"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("train"), "run/config.json: train: Field required"),
        (edit_config("train", num_iterations="6"), "run/config.json: train.num_iterations is '6': Input should be"),
        (write("config.json", b"[" * 100_000), "cannot read run/config.json: maximum recursion depth"),
        (edit_config("agent", hidden_size=16), f"run/{LATEST} does not fit the settings in run/config.json: agent."),
        (edit_config("agent", head_sizes=[8]), f"run/{LATEST} does not fit the settings in run/config.json: "),
        (edit_config("family", size=4), f"run/{LATEST} does not fit the settings in run/config.json: agent."),
        (write(LATEST, b""), f"cannot read checkpoint run/{LATEST}: it is corrupt or not a checkpoint"),
        (write(LATEST, b"hello"), f"cannot read checkpoint run/{LATEST}: it is corrupt or not a checkpoint"),
        (cut(LATEST, 300), f"cannot read checkpoint run/{LATEST}: it is corrupt or not a checkpoint"),
        (checkpoint({"a": 1}), f"run/{LATEST} does not fit the settings in run/config.json: it lacks 'iteration'"),
        (checkpoint([1]), f"run/{LATEST} is not a checkpoint: it holds a list; must hold a dict"),
        (edit_checkpoint(iteration="4"), "run/config.json: iteration is of type str; must be int"),
        (edit_checkpoint(agent={}), "run/config.json: it lacks 'net'"),
        (lambda run: shutil.rmtree(run / "checkpoints"), "checkpoint"),
    ],
)  # fmt: skip
def test_damage_is_one_line_and_touches_nothing(run, capsys, command, damage, message):
    damage(run)
    before = files(run)
    assert message in fails(capsys, command, "run")
    assert files(run) == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (folder_for(".lock"), "cannot lock run/.lock: Is a directory; must be a file that can be written"),
        (folder_for("progress.json"), "cannot read run/progress.json: Is a directory"),
        (folder_for(LATEST), f"run has logged 4 iterations, and there is no checkpoint at run/{LATEST} to go on from"),
        (edit_checkpoint(generators={"env": torch.zeros(16, dtype=torch.uint8)}), "generators.env has shape [16]"),
    ],
)
def test_what_keeps_a_run_from_going_on_is_one_line_and_touches_nothing(run, capsys, damage, message):
    damage(run)
    before = files(run)
    assert message in fails(capsys, "resume", "run")
    assert files(run) == before


def test_a_checkpoint_of_another_device_can_be_evaluated(run, capsys):
    edit_checkpoint(generators={"env": torch.zeros(16, dtype=torch.uint8)})(run)
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "run", "--tasks", "2"])
    assert not stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    "torn",
    [b"", b"\n", b"3\n", b"null\n", b"[1]\n", b"{}\n", b"\xff\0\n", b'{"a": "', b'{"time/total_timesteps": "x"}\n'],
)
def test_a_row_torn_by_a_kill_is_done_again(run, torn):
    rows = Run.open(run).progress()
    append("progress.json", torn)(run)
    append("progress.csv", torn)(run)
    with pytest.raises(SystemExit) as stop:
        main(["resume", "run"])
    assert not stop.value.code
    resumed = Run.open(run).progress()
    assert len({row[STEP_TAG] for row in resumed}) == len(resumed) == 6
    assert resumed[:4] == rows
    with (run / "progress.csv").open() as file:
        assert [float(row[STEP_TAG]) for row in csv.DictReader(file)] == [row[STEP_TAG] for row in resumed]


def test_a_line_that_is_no_row_costs_none_of_those_after_it(run):
    rows = Run.open(run).progress()
    lines = (run / "progress.json").read_text().splitlines()
    (run / "progress.json").write_text("\n".join([lines[0], "odd", *lines[1:]]) + "\n")
    assert Run.open(run).progress() == rows


def test_a_run_that_was_never_evaluated_has_a_figure_without_test_tasks(run):
    (run / "progress.json").unlink()
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "run", "--tasks", "2"])
    assert not stop.value.code
    assert list(run.glob("evaluation_*.png"))
