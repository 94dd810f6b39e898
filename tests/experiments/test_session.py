"""The end of a training: saved before it is printed, whatever the output, the figures or a signal do."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from experiments.cli import session
from experiments.cli.main import main
from experiments.cli.output import Tolerant, tolerant_output
from experiments.cli.tables import print_evaluation
from experiments.experiment.definition import Expected
from metarl.evaluation import Evaluation, Score
from metarl.run.directory import STEP_TAG, Run
from tests.experiments.command import finished_run

RECIPE = """
from agents.rl2 import RL2Config
from envs.torch_families.gridworld import GridNavi
from experiments.experiment.definition import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=GridNavi(size=3, horizon=2, num_episodes=2),
    agent=RL2Config(hidden_size=4, head_sizes=(), num_epochs=1, num_minibatches=1),
    train=TrainConfig(num_iterations=3, num_tasks=2, eval_every=0, eval_tasks=2),
)
"""
RESULTS = ("evaluation_test.json", "evaluation_test.png", "exploration.png")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(RECIPE, tmp_path_factory.mktemp("finished"))


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(finished.parent / "recipe.py", "recipe.py")
    capsys.readouterr()
    return Path(shutil.copytree(finished, "run"))


def metarl(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    return int(stop.value.code or 0)


class Broken(io.StringIO):
    """A stream that nobody can write to."""

    def write(self, text: str) -> int:
        raise self.error

    error: Exception = BrokenPipeError()


# Output


@pytest.mark.parametrize(("error", "status"), [(BrokenPipeError(), 141), (OSError(28, "full"), 2), (ValueError(), 0)])
def test_output_that_fails_costs_a_training_nothing(run, monkeypatch, error, status):
    monkeypatch.setattr(Broken, "error", error)
    monkeypatch.setattr(sys, "stdout", Broken())
    monkeypatch.setattr(sys, "stderr", Broken())
    assert metarl("train", "recipe.py", "--run-dir", "silent") == status
    assert len(Run.open("silent").progress()) == 3
    assert all((Path("silent") / name).is_file() for name in RESULTS)


@pytest.mark.slow
def test_a_full_device_is_one_mistake_at_the_end(run):
    with open("/dev/full", "w") as full, open("errors", "w") as errors:
        words = [sys.executable, "-m", "experiments", "train", "recipe.py", "--run-dir", "full"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        assert subprocess.run(words, stdout=full, stderr=errors, env=environment).returncode == 2
    assert "Traceback" not in Path("errors").read_text()
    assert Path("errors").read_text().endswith("metarl: [Errno 28] No space left on device\n")
    assert all((Path("full") / name).is_file() for name in RESULTS)


def test_characters_that_an_output_does_not_know_are_replaced():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Tolerant(stream).write("size² of a run\n")
    Tolerant(stream).flush()
    assert stream.buffer.getvalue() == b"size? of a run\n"  # type: ignore[attr-defined]


def test_there_may_be_no_output_at_all(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with tolerant_output():
        print("nobody reads this")


@pytest.mark.parametrize("source", ["[/bold]", "Smith [2017], table [1/2]", "[red]x", "a \\[b"])
def test_what_looks_like_markup_is_printed_as_it_is(source):
    score = Score(1.0, 1.0, (0.5, 1.5))
    evaluation = Evaluation("[/b]family", "rl2", "test", 3, [score], score, {"[i]bound": [1.0]}, facts={"note": source})
    output = io.StringIO()
    print_evaluation(evaluation, Expected(at_least=1.0, source=source), Console(file=output, width=200))
    assert output.getvalue().count(source) == 2
    assert "[/b]family" in output.getvalue()
    assert "[i]bound" in output.getvalue()


# Figures and videos


def refuse(*_: object, **__: object) -> None:
    raise KeyError("no such thing")


@pytest.mark.parametrize(
    ("name", "missing"),
    [("experiments.cli.plots.plot_run", RESULTS[1]), ("experiments.cli.session.draw_exploration", RESULTS[2])],
)
def test_a_figure_that_fails_costs_none_of_the_rest_and_is_made_by_resume(run, monkeypatch, capsys, name, missing):
    with monkeypatch.context() as patched:
        patched.setattr(name, refuse)
        assert metarl("train", "recipe.py", "--run-dir", "other") == 1
    output, errors = capsys.readouterr()
    assert "95 % interval" in output
    assert errors.count("metarl: there is no ") == 1
    assert {name for name in RESULTS if not (Path("other") / name).exists()} == {missing}
    assert metarl("resume", "other") == 0
    assert all((Path("other") / name).is_file() for name in RESULTS)


def test_a_video_that_fails_in_any_way_ends_nothing(run, monkeypatch, capsys):
    monkeypatch.setattr(session, "record", refuse)
    assert metarl("train", "recipe.py", "--run-dir", "unrecorded", "--video-every", "1") == 0
    assert "metarl: 'no such thing'; training continues without further videos" in capsys.readouterr().err


# Errors in mid-training


def test_an_error_in_mid_training_is_one_line_with_its_traceback_in_the_run(run, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        patched.setattr("metarl.rl.trials.TrialSource.draw", refuse)
        assert metarl("train", "recipe.py", "--run-dir", "broken") == 1
    errors = capsys.readouterr().err
    [line] = [line for line in errors.splitlines() if line.startswith("metarl: ")]
    assert line.startswith("metarl: refuse (test_session.py, line ")
    assert line.endswith("'no such thing'; what was saved before is in broken, the traceback in traceback.txt")
    assert "Traceback (most recent call last)" in Path("broken/traceback.txt").read_text()
    assert metarl("resume", "broken") == 0
    assert "No iteration of broken was saved: it starts from the beginning." in capsys.readouterr().err
    whole = [without_time(row) for row in Run.open("run").progress()]
    assert [without_time(row) for row in Run.open("broken").progress()] == whole


def without_time(row: dict[str, float]) -> dict[str, float]:
    return {tag: value for tag, value in row.items() if not tag.startswith("time/")}


# What a kill after the last iteration leaves


def cut_last_row(run: Path) -> None:
    lines = (run / "progress.json").read_text().splitlines(keepends=True)
    (run / "progress.json").write_text("".join(lines[:-1]))


def cut_evaluation_of_last_row(run: Path) -> None:
    *rows, last = Run.open(run).progress()
    last = {tag: value for tag, value in last.items() if not tag.startswith("meta_test/")}
    (run / "progress.json").write_text("".join(f"{json.dumps(row)}\n" for row in [*rows, last]))


@pytest.mark.parametrize(
    "kill",
    [
        cut_last_row,
        cut_evaluation_of_last_row,
        *(lambda run, name=name: (run / name).unlink() for name in RESULTS),
        lambda run: [(run / name).unlink() for name in RESULTS],
    ],
)
def test_what_a_kill_after_the_last_iteration_left_out_is_made_by_resume(run, capsys, kill: Callable[[Path], Any]):
    before, rows = {name: (run / name).read_bytes() for name in RESULTS}, Run.open(run).progress()
    kill(run)
    assert metarl("resume", "run") == 0
    assert "All 3 iterations are done: the evaluation and figures of run are made again." in capsys.readouterr().err
    assert json.loads((run / RESULTS[0]).read_text()) == json.loads(before[RESULTS[0]])
    assert (run / RESULTS[2]).read_bytes() == before[RESULTS[2]]
    assert (run / RESULTS[1]).is_file()
    made = Run.open(run).progress()
    assert [row[STEP_TAG] for row in made] == [row[STEP_TAG] for row in rows]
    assert [without_time(row) for row in made] == [without_time(row) for row in rows]
    assert metarl("resume", "run") == 0
    assert "This run is finished" in capsys.readouterr().out


# Another device


def test_a_run_goes_on_on_another_device_and_says_what_that_means(run, capsys):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "device": "cuda"}))
    assert metarl("resume", "run", "--num-iterations", "5") == 2
    assert "use --device cpu" in capsys.readouterr().err
    assert metarl("resume", "run", "--num-iterations", "5", "--device", "cpu") == 0
    errors = capsys.readouterr().err
    assert "run goes on after iteration 3, now on cpu: from here on it is not bit for bit what it would" in errors
    assert Run.open(run).config()["device"] == "cpu"
    assert len(Run.open(run).progress()) == 5


def test_random_streams_of_another_kind_of_device_begin_anew(run, capsys):
    import torch

    state = torch.load(run / "checkpoints" / "latest.pt", weights_only=True)
    state["generators"] = {name: torch.zeros(16, dtype=torch.uint8) for name in state["generators"]}
    torch.save(state, run / "checkpoints" / "latest.pt")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "device": "cuda"}))
    assert metarl("resume", "run", "--num-iterations", "4", "--device", "cpu") == 0
    assert metarl("resume", "run", "--num-iterations", "5") == 0
    assert len(Run.open(run).progress()) == 5


@pytest.mark.parametrize("number", ["3", "-1", "9" * 400])
def test_a_number_of_iterations_that_cannot_be_is_one_line(run, capsys, number):
    assert metarl("resume", "run", "--num-iterations", number) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert errors.startswith("metarl: --num-iterations is ")


# Signals


def test_a_terminal_that_vanishes_stops_as_other_signals_do_and_may_say_so_twice():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup themselves
    try:
        with session._Signals() as signals:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGHUP)
            assert signals.first == signal.SIGHUP
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_under_nohup_a_vanished_terminal_stops_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with session._Signals() as signals:
            signal.raise_signal(signal.SIGHUP)
        assert signals.first is None
    finally:
        signal.signal(signal.SIGHUP, before)
