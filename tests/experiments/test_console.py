"""What a console shows: any encoding, commands that can be pasted, where a run lives, and one order of columns."""

import csv
import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.cli.encoding import show_in_any_encoding
from tests.experiments.command import run

RECIPE = """from agents import RL2Config
from envs import BernoulliBandit
from experiments import Experiment, TrainConfig

experiment = Experiment(
    BernoulliBandit(num_arms=2, num_pulls=3),
    RL2Config(hidden_size=8, head_sizes=()),
    TrainConfig(num_iterations=4, num_tasks=4, eval_tasks=4, eval_every=2, checkpoint_every=1),
)
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("recipe.py").write_text(RECIPE)
    return "recipe.py"


@pytest.mark.parametrize("encoding", ["ascii", "cp932", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize("words", [["list"], ["train", "--help"]])
def test_lists_and_help_are_shown_in_any_encoding(encoding, words):
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    result = subprocess.run([sys.executable, "-m", "experiments", *words], capture_output=True, env=environment)
    assert result.returncode == 0, result.stderr.decode()
    text = result.stdout.decode(encoding)
    assert "?" not in text
    if words == ["list"]:
        assert ("RL²" if encoding in ("utf-8", "latin-1", "cp1252") else "RL2") in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [("RL²", "RL2"), ("3 × 4 – 5", "3 x 4 - 5"), ("Poincaré", "Poincare"), ("赤 ☃", "? ?"), ("a", "a")],
)
def test_what_an_encoding_lacks_is_written_plainly(monkeypatch, text, shown):
    for name in ("stdout", "stderr"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
        monkeypatch.setattr(sys, name, stream)
        show_in_any_encoding()
        stream.write(text)
        stream.flush()
        assert stream.buffer.getvalue().decode() == shown  # pyright: ignore[reportAttributeAccessIssue], a BytesIO


@pytest.mark.parametrize("name", ["my first (try)", "it's", "$HOME;x", "plain"])
def test_printed_commands_can_be_pasted(recipe, capsys, name):
    status, output, errors = run(capsys, "train", recipe, "--run-dir", name)
    assert status == 0, errors
    (line,) = [line for line in output.splitlines() if line.startswith("TensorBoard: ")]
    assert shlex.split(line.removeprefix("TensorBoard: ")) == ["tensorboard", "--logdir_spec", f"{name}:{name}"]
    output = run(capsys, "resume", name)[1]
    pasted = output.split("Evaluate it with: ")[1].split("; train it on")[0]
    assert shlex.split(pasted) == ["metarl", "evaluate", name]
    errors = run(capsys, "train", recipe, "--run-dir", name)[2]
    assert shlex.split(errors.split("continue it with: ")[1]) == ["metarl", "resume", name]


def test_a_training_says_where_it_lives_and_when_it_is_evaluated(recipe, capsys):
    status, _, errors = run(capsys, "train", recipe, "--run-dir", "my run")
    assert status == 0
    lines = errors.splitlines()
    assert lines[0].startswith("Run: my run  device cpu  commit ") or "no commit" in lines[0]
    assert [index for index, line in enumerate(lines) if "evaluating on 4 test tasks" in line] == [len(lines) - 2]


def test_columns_are_the_same_in_every_run_and_after_a_resume(recipe, capsys):
    """Rows without an evaluation come first, so that its columns are added later."""
    for name, seed in (("a", "0"), ("b", "1")):
        assert run(capsys, "train", recipe, "--run-dir", name, "--seed", seed, "--train.num-iterations", "3")[0] == 0
    headers = [Path(name, "progress.csv").read_text().splitlines()[0] for name in "ab"]
    assert headers[0] == headers[1]
    columns = headers[0].split(",")
    assert columns == ["time/total_timesteps", *sorted(columns[1:])]
    assert run(capsys, "resume", "a", "--num-iterations", "4")[0] == 0
    with Path("a", "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == columns
    assert [float(row["time/iterations"]) for row in rows] == [1, 2, 3, 4]
    assert [row["meta_test/iqm"] != "" for row in rows] == [False, True, True, True]
    assert all(row["time/fps"] for row in rows)
