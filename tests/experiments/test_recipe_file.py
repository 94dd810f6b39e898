"""Recipes of the user's own: what fails is named with its line, and modules beside them are found, now and later."""

import importlib
import json
import sys
from pathlib import Path

import pytest

import agents
from experiments.cli.main import main
from experiments.experiment.definition import load
from metarl.errors import UserError
from metarl.run.directory import Run

HEAD = """from agents.rl2 import RL2Config
from experiments.experiment.definition import Experiment
from metarl.trainer import TrainConfig
"""

ROBOT = """
from dataclasses import dataclass

from agents.rl2 import RL2Config
from envs.torch_families.gridworld import GridNavi

SIZE = {size}


@dataclass(frozen=True)
class Maze(GridNavi):
    doors: int = 2


@dataclass(frozen=True)
class Config(RL2Config):
    patience: int = 1
"""

USES_ROBOT = (
    HEAD
    + """
from robot import SIZE, Config, Maze

experiment = Experiment(
    Maze(size=SIZE, horizon=2, num_episodes=2),
    Config(hidden_size=8, head_sizes=(), num_epochs=1),
    TrainConfig(num_iterations=1, num_tasks=2, eval_tasks=2),
)
"""
)


def recipe(folder: Path, text: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "recipe.py").write_text(text)
    return str(folder / "recipe.py")


def metarl(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    return int(stop.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("1 / 0", "ZeroDivisionError in line 4: division by zero"),
        ("{}['a']", "KeyError in line 4: 'a'"),
        ("None.shape", "AttributeError in line 4: 'NoneType' object has no attribute 'shape'"),
        ("assert not 3, 'an odd number'", "AssertionError in line 4: an odd number"),
        ("assert False", "AssertionError in line 4"),
        ("raise SystemExit(3)", "SystemExit in line 4: 3"),
        ("def f(): return f()\nf()", "RecursionError in line 4: maximum recursion depth exceeded"),
        ("open('absent')", "FileNotFoundError in line 4: [Errno 2] No such file or directory: 'absent'"),
        ("import absent", "ModuleNotFoundError in line 4: No module named 'absent'"),
        ("RL2Config(hidden_size=0)", "ValueError in line 4: hidden_size is 0; must be at least 1"),
        ("x = (", "SyntaxError in line 4: '(' was never closed"),
        ("import broken", "SyntaxError in line 4 (line 2 of broken.py): invalid syntax"),
        ("import failing", "RuntimeError in line 4 (line 3 of failing.py): two lines"),
    ],
)
def test_whatever_fails_is_one_line_with_its_place(tmp_path, capsys, line, what):
    path = recipe(tmp_path, f"{HEAD}{line}\n")
    (tmp_path / "broken.py").write_text("\nx y\n")
    (tmp_path / "failing.py").write_text("\n\nraise RuntimeError('two\\nlines')\n")
    status, errors = metarl(capsys, "train", path, "--run-dir", str(tmp_path / "run"))
    assert status == 2
    assert errors.startswith(f"metarl: recipe {path} does not load: {what}")
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_module_beside_a_recipe_is_found_again_by_its_runs(tmp_path, capsys, monkeypatch):
    path = recipe(tmp_path / "mine", USES_ROBOT)
    (tmp_path / "mine" / "robot.py").write_text(ROBOT.format(size=3))
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert metarl(capsys, "train", path, "--run-dir", "run")[0] == 0
    assert json.loads(Path("run/config.json").read_text())["family"]["class"] == "robot:Maze"
    load(recipe(tmp_path / "other", HEAD + "experiment = Experiment(None, None, TrainConfig(1, 1))\n"))
    assert "robot" not in sys.modules  # as in a new process
    status, errors = metarl(capsys, "resume", "run", "--num-iterations", "2")
    assert status == 0, errors
    assert Run.open("run").load("latest")["iteration"] == 2
    assert sys.path == before


def test_modules_of_one_name_beside_two_recipes_are_two(tmp_path):
    sizes = []
    for size in (3, 4):
        folder = tmp_path / str(size)
        path = recipe(folder, USES_ROBOT)
        (folder / "robot.py").write_text(ROBOT.format(size=size))
        sizes.append(load(path).family.size)
    assert sizes == [3, 4]


def test_our_packages_are_ours_beside_a_recipe_and_after_it(tmp_path):
    for name in ("agents", "envs", "metarl", "experiments"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not ours')")
    (tmp_path / "robot.py").write_text(ROBOT.format(size=3))
    (tmp_path / "json.py").write_text("SIZE = 5")
    assert load(recipe(tmp_path, USES_ROBOT)).family.size == 3
    assert importlib.import_module("agents") is agents
    assert str(tmp_path) not in sys.path
    with pytest.raises(UserError, match="ModuleNotFoundError in line 1: No module named 'robot'"):
        load(recipe(tmp_path / "other", "import robot"))
    assert importlib.import_module("json") is json
