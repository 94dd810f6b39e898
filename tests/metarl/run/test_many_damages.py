"""Hundreds of edits of every file of a small run: each is harmless, or one line that says what is wrong."""

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.cli.main import main
from tests.experiments.command import finished_run

RECIPE = """
from agents.rl2 import RL2Config
from envs.torch_families.bandits import BernoulliBandit
from experiments.experiment.definition import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=BernoulliBandit(num_arms=2, num_pulls=2),
    agent=RL2Config(hidden_size=4, head_sizes=(), num_epochs=1, num_minibatches=1),
    train=TrainConfig(num_iterations=2, num_tasks=2, eval_every=0, eval_tasks=2),
)
"""

Damage = Callable[[Path], object]
Edits = Iterator[tuple[str, Damage]]

ODD_VALUES = (None, "x", -1, 1e308, 10**400, [], {}, [[]], True, float("nan"))
ODD_TENSORS: dict[str, Callable[[torch.Tensor], Any]] = {
    "text": lambda value: "x",
    "no number": lambda value: None,
    "other shape": lambda value: torch.zeros(*value.shape, 3),
    "no entries": lambda value: torch.zeros(0),
    "other type": lambda value: value.to(torch.complex64),
    "whole numbers": lambda value: value.long(),
    "not a number": lambda value: torch.full_like(value, torch.nan) if value.is_floating_point() else "x",
    "sparse": lambda value: value.to_sparse(),
    "expanded": lambda value: value.new_zeros(()).expand(value.shape),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(RECIPE, tmp_path_factory.mktemp("finished"))


def edited(values: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of nested dicts and lists with another value at a path."""
    values = copy.deepcopy(values)
    inner = values
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return values


def without(values: Any, path: tuple[Any, ...]) -> Any:
    values = copy.deepcopy(values)
    inner = values
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return values


def paths(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of everything in nested dicts and lists."""
    keys = values.keys() if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else ()
    for key in keys:
        yield (*path, key)
        yield from paths(values[key], (*path, key))


def at(values: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        values = values[key]
    return values


def write_json(name: str, values: Any) -> Damage:
    return lambda run: (run / name).write_text(json.dumps(values))


def write_checkpoint(state: Any) -> Damage:
    return lambda run: torch.save(state, run / "checkpoints" / "latest.pt")


def edits_of_json(run: Path, name: str) -> Edits:
    """Each field is left out, or has one of the odd values."""
    values = json.loads((run / name).read_text())
    for number, path in enumerate(paths(values)):
        where = f"{name}: {'.'.join(map(str, path))}"
        yield f"{where} left out", write_json(name, without(values, path))
        odd = ODD_VALUES[number % len(ODD_VALUES)]
        yield f"{where} is {str(odd)[:9]}", write_json(name, edited(values, path, odd))


def edits_of_checkpoint(run: Path) -> Edits:
    """Each entry is left out or has another type; each tensor is changed in one of the odd ways."""
    state = torch.load(run / "checkpoints" / "latest.pt", weights_only=True)
    changes = list(ODD_TENSORS.items())
    for number, path in enumerate(paths(state)):
        value, where = at(state, path), f"checkpoint: {'.'.join(map(str, path))}"
        yield f"{where} left out", write_checkpoint(without(state, path))
        if isinstance(value, torch.Tensor):
            name, change = changes[number % len(changes)]
            yield f"{where} has {name}", write_checkpoint(edited(state, path, change(value)))
        else:
            odd = ODD_VALUES[number % len(ODD_VALUES)]
            yield f"{where} is {str(odd)[:9]}", write_checkpoint(edited(state, path, odd))
    for name, change in ODD_TENSORS.items():  # all of them to one moment of the optimiser
        path = ("optimizer", "state", 0, "exp_avg_sq")
        moved = edited(state["agent"], path, change(at(state["agent"], path)))
        yield f"moment has {name}", write_checkpoint({**state, "agent": moved})


def edits_of_bytes(run: Path) -> Edits:
    """Every file is emptied, cut, has a byte changed, is garbage, a folder, a pipe, or a link to nowhere."""
    for file in sorted(path for path in run.rglob("*") if path.is_file()):
        name, content = str(file.relative_to(run)), file.read_bytes()
        middle = len(content) // 2
        for what, new in {
            "empty": b"",
            "cut": content[:middle],
            "one byte changed": content[:middle] + b"\xff" + content[middle + 1 :],
            "garbage": b"\0\xff[{" * 100,
            "nested": b"[" * 50_000,
        }.items():
            yield f"{name} {what}", lambda run, name=name, new=new: (run / name).write_bytes(new)
        for what, make in {
            "a folder": Path.mkdir,
            "a pipe": os.mkfifo,
            "a link": lambda path: path.symlink_to("/nowhere/at/all"),
        }.items():
            yield f"{name} is {what}", lambda run, name=name, make=make: ((run / name).unlink(), make(run / name))


@pytest.mark.parametrize(
    ("command", "every"),
    [
        ("resume run", 16),
        ("evaluate run --tasks 2 --json", 22),
        pytest.param("resume run", 1, marks=pytest.mark.slow),
        pytest.param("evaluate run --tasks 2 --json", 1, marks=pytest.mark.slow),
    ],
)
def test_every_edit_is_harmless_or_one_line(finished, tmp_path, monkeypatch, capsys, command, every):
    monkeypatch.chdir(tmp_path)
    edits = [
        *(edit for name in ("config.json", "meta.json") for edit in edits_of_json(finished, name)),
        *edits_of_checkpoint(finished),
        *edits_of_bytes(finished),
    ]
    assert len(edits) > 400
    monkeypatch.setattr("experiments.cli.session.meta_train", lambda *_: 0)  # what is missing would be made again
    wrong = []
    for what, damage in edits[::every]:
        shutil.copytree(finished, "run")
        damage(Path("run"))
        try:
            main(command.split())
        except SystemExit as stop:
            errors = capsys.readouterr().err
            lines = errors.count("\n")
            if (stop.code or 0, lines) not in ((0, 0), (0, 1), (2, 1)):
                wrong.append((what, stop.code, errors[-500:]))
        except Exception as error:
            wrong.append((what, type(error).__name__, str(error)[:300]))
        shutil.rmtree("run")
    assert not wrong, f"{len(wrong)} of {len(edits)}: {wrong[:20]}"
