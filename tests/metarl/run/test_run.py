"""The run directory: logs without a repeated step, checkpoints whole or not at all, an exact resume after kill -9."""

import csv
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils import _pytree as pytree

from envs.torch_families.bandits import BernoulliBandit
from experiments.cli.session import _Signals, _Stopped
from metarl.errors import RunError
from metarl.run.directory import STEP_TAG, Run
from metarl.run.provenance import provenance
from tests.experiments.command import run as run_command

RECIPE = '''
"""RL2 on a tiny bandit."""
from agents.rl2 import RL2Config
from envs.torch_families.bandits import BernoulliBandit
from experiments.experiment.definition import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=BernoulliBandit(num_arms=2, num_pulls=3),
    agent=RL2Config(hidden_size=8, head_sizes=(8,), num_epochs=1, num_minibatches=1),
    train=TrainConfig(num_iterations=120, num_tasks=4, eval_every=25, eval_tasks=5, checkpoint_every=4),
)
'''


def new_run(tmp_path: Path, seed: int = 0) -> Run:
    return Run.create(tmp_path, "family", "agent", seed, {"seed": seed}, ["metarl", "train", "an experiment"])


def metarl(*words: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "experiments", *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_rows(run: Path, number: int) -> None:
    """Until the run has logged so many rows."""
    path, deadline = run / "progress.json", time.monotonic() + 60
    while not path.exists() or len(path.read_text().splitlines()) < number:
        assert time.monotonic() < deadline, f"{path} has not {number} rows after a minute"
        time.sleep(0.005)


# The directory


def test_two_runs_of_one_second_have_directories_of_their_own(tmp_path):
    first, second = new_run(tmp_path, seed=3), new_run(tmp_path, seed=3)
    assert first.path != second.path
    assert first.path.parent == tmp_path / "family" / "agent"
    assert "_s3" in first.path.name
    meta = json.loads((second.path / "meta.json").read_text())
    assert meta["command"] == "metarl train 'an experiment'"
    assert meta["versions"]["torch"] == torch.__version__
    assert Run.open(second.path).config() == {"seed": 3}


def test_a_run_knows_its_commit_and_whether_the_code_differs_from_it(tmp_path, monkeypatch):
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=b", *words], cwd=tmp_path, check=True)

    (tmp_path / "provenance.py").write_text("one")
    monkeypatch.setattr("metarl.run.provenance.__file__", str(tmp_path / "provenance.py"))
    git("init", "-q")
    assert provenance([])["git"] is None  # the file is in somebody else's repository
    git("add", "provenance.py")
    git("commit", "-q", "-m", "one")
    head = (tmp_path / ".git" / "HEAD").read_text().split()[1]
    commit = (tmp_path / ".git" / head).read_text().strip()
    assert provenance([])["git"] == {"commit": commit, "changed": False}
    (tmp_path / "provenance.py").write_text("two")
    run = new_run(tmp_path / "runs")
    assert json.loads((run.path / "meta.json").read_text())["git"] == {"commit": commit, "changed": True}


def test_what_the_same_bits_need_names_numba_where_it_is_used(monkeypatch):
    monkeypatch.delenv("METARL_NUMBA", raising=False)
    used = provenance([])["same_bits_with"]
    assert used["numba"] == (metadata.version("numba") if find_spec("numba") else None)
    monkeypatch.setenv("METARL_NUMBA", "0")
    assert provenance([])["same_bits_with"] == {**used, "numba": None}


def test_a_directory_in_use_is_refused(tmp_path):
    run = new_run(tmp_path)
    with pytest.raises(RunError, match="holds a run already; continue it with: metarl resume"):
        Run.create_at(run.path, {}, [])
    with pytest.raises(RunError, match="is not empty"):
        Run.create_at(tmp_path, {}, [])


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    for create in (
        lambda: Run.create_at(tmp_path / "file" / "run", {}, []),
        lambda: Run.create(tmp_path / "file", "family", "agent", 0, {}, []),
    ):
        with pytest.raises(RunError, match=r"cannot create a run.*Not a directory") as caught:
            create()
        assert "\n" not in str(caught.value)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="no such directory"):
        Run.open(tmp_path / "absent")
    run = new_run(tmp_path)
    with pytest.raises(RunError, match=f"is not a run: it has no config.json; the newest run below it is {run.path}"):
        Run.open(tmp_path)
    (run.path / "config.json").write_text("{")
    with pytest.raises(RunError, match="cannot read"):
        run.config()


# Logs


def logged(run: Run) -> tuple[list[int], list[int], list[int]]:
    """The steps in progress.json, in progress.csv and in TensorBoard's events."""
    with (run.path / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    events = EventAccumulator(str(run.path))
    events.Reload()
    return (
        [int(row[STEP_TAG]) for row in run.progress()],
        [int(row[STEP_TAG]) for row in rows],
        [event.step for event in events.Scalars("train/loss")],
    )


def test_a_rewound_run_logs_no_step_twice(tmp_path):
    run = new_run(tmp_path)
    for step in (10, 20, 30, 40):
        run.log({"train/loss": 1.0, **({"meta_test/iqm": 2.0} if step == 20 else {})}, step)
    run.close()
    with (run.path / "progress.json").open("a") as file:
        file.write('{"train/loss": 1')  # as a kill leaves it
    (run.path / "progress.csv").write_text("torn")
    resumed = Run.open(run.path)
    resumed.rewind(20)
    for step in (30, 40, 50):
        resumed.log({"train/loss": 5.0, "late": 1.0}, step)
    resumed.close()
    assert logged(resumed) == ([10, 20, 30, 40, 50],) * 3
    with (run.path / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["train/loss"] for row in rows] == ["1.0", "1.0", "5.0", "5.0", "5.0"]
    assert [row["meta_test/iqm"] for row in rows] == ["", "2.0", "", "", ""]
    assert [row["late"] for row in rows] == ["", "", "1.0", "1.0", "1.0"]


# Checkpoints

STATE = {"weights": torch.arange(4.0), "moments": (1, 2.5, None, "text", True), "nested": {0: [torch.zeros(2)]}}


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    run = new_run(tmp_path)
    run.save("latest", STATE)
    loaded = Run.open(run.path).load("latest")
    assert torch.equal(loaded.pop("weights"), STATE["weights"])
    assert torch.equal(loaded["nested"].pop(0)[0], torch.zeros(2))
    assert loaded == {"moments": STATE["moments"], "nested": {}}


def test_only_tensors_and_plain_python_are_saved(tmp_path):
    run = new_run(tmp_path)
    with pytest.raises(TypeError, match=r"latest\['agent'\]\[1\] is a Path|latest\['agent'\]\[1\] is a PosixPath"):
        run.save("latest", {"agent": [0, Path("x")]})
    assert not run.has("latest")


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    run = new_run(tmp_path)
    run.save("latest", STATE)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"cannot write checkpoint .*: No space left on device; the checkpoint before"):
        run.save("latest", {"weights": torch.ones(1000)})
    assert torch.equal(run.load("latest")["weights"], STATE["weights"])
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["latest.pt"]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A system in which writing beyond so many bytes of a file fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_write_cut_short_by_the_system_leaves_the_last_checkpoint(tmp_path):
    run = new_run(tmp_path)
    run.save("latest", STATE)
    with files_of_at_most(100_000), pytest.raises(RunError, match="File too large; the checkpoint before it is kept"):
        run.save("latest", {"weights": torch.ones(100_000)})
    assert torch.equal(run.load("latest")["weights"], STATE["weights"])
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["latest.pt"]


def test_a_damaged_or_absent_checkpoint_is_one_line(tmp_path):
    run = new_run(tmp_path)
    with pytest.raises(RunError, match="has no checkpoint named 'latest'; it has none"):
        run.load("latest")
    for name in ("latest", "best", "iteration_10", "iteration_9"):
        run.save(name, STATE)
    with pytest.raises(RunError, match=r"named '\.\./x'; it has best, iteration_9, iteration_10, latest"):
        run.load("../x")
    path = run.path / "checkpoints" / "latest.pt"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(RunError, match="cannot read checkpoint") as caught:
        run.load("latest")
    assert "\n" not in str(caught.value)


# Resume, through the command line


@pytest.mark.slow
def test_kill_and_resume_is_one_training_bit_for_bit(tmp_path):
    (tmp_path / "recipe.py").write_text(RECIPE)
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    unbroken = metarl("train", "recipe.py", "--run-dir", "whole", folder=tmp_path)
    killed = metarl("train", "recipe.py", "--run-dir", "parted", folder=tmp_path)
    wait_for_rows(parted, 10)  # beyond the checkpoint at 8: what comes after it is done again
    killed.kill()
    killed.communicate()
    reached = len(Run.open(parted).progress())
    assert 10 <= reached < 120, "the training ended before it was killed"
    resumed = metarl("resume", "parted", folder=tmp_path)
    for process in (unbroken, resumed):
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    states = []
    for path in (whole, parted):
        state = Run.open(path).load("latest")
        assert state["iteration"] == 120
        assert state.pop("seconds") > 0  # of wall-clock: the only thing that may differ
        states.append(pytree.tree_leaves(state))
    for one, other in zip(*states, strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    curves = []
    for path in (whole, parted):
        rows = Run.open(path).progress()
        assert [row[STEP_TAG] for row in rows] == [12 * iteration for iteration in range(1, 121)]
        curves.append([{tag: value for tag, value in row.items() if not tag.startswith("time/")} for row in rows])
    assert curves[0] == curves[1]
    evaluations = [json.loads((path / "evaluation_test.json").read_text()) for path in (whole, parted)]
    assert evaluations[0] == evaluations[1]


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("recipe.py").write_text(RECIPE)
    return "recipe.py"


def test_a_disk_that_fills_up_while_training_is_one_line(recipe, capsys):
    words = ("train", recipe, "--run-dir", "run", "--train.num-iterations", "1000")
    with files_of_at_most(60_000):  # bytes: enough for some fifty rows
        status, _, errors = run_command(capsys, *words)
    assert status == 2
    assert "Traceback" not in errors
    assert errors.count("metarl: ") == 1
    assert "metarl: cannot log into run: File too large\n" in errors
    run = Run.open(Path("run"))
    assert run.load("latest")["iteration"] >= 20
    assert not list((run.path / "checkpoints").glob(".*"))


def test_a_signal_saves_and_says_how_to_go_on(recipe, capsys, monkeypatch):
    log = Run.log

    def signal_after_three(self: Run, row: dict[str, float], step: int) -> None:
        log(self, row, step)
        if len(self.progress()) == 3:
            with pytest.raises(RunError, match="another process is training in"), Run.open(self.path).lock():
                pass
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Run, "log", signal_after_three)
    words = ("--run-dir", "run", "--train.num-iterations", "100000", "--train.checkpoint-every", "100000")
    status, _, errors = run_command(capsys, "train", recipe, *words)
    assert status == 130
    assert "Resume with: metarl resume run" in errors
    assert "Traceback" not in errors
    run = Run.open(Path("run"))
    with run.lock():
        assert run.load("latest")["iteration"] == len(run.progress()) >= 3


def test_a_signal_stops_the_evaluation_at_the_end(recipe, capsys, monkeypatch):
    def slowly(self: BernoulliBandit, tasks: Any, num_episodes: int) -> Any:
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the evaluation goes on")

    monkeypatch.setattr(BernoulliBandit, "bounds", slowly)
    words = ("--run-dir", "run", "--train.num-iterations", "3", "--train.eval-every", "0")
    status, _, errors = run_command(capsys, "train", recipe, *words)
    assert status == 130
    assert "Training is complete and saved. Make its evaluation and figures with: metarl resume run\n" in errors
    assert "Traceback" not in errors
    assert Run.open(Path("run")).load("latest")["iteration"] == 3
    assert not list(Path("run").glob("evaluation_*"))


def test_a_signal_of_the_last_iteration_stops_the_evaluation_after_it():
    with _Signals() as signals:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(_Stopped), signals.stop_at_once():
            pytest.fail("this part was to be stopped")
    assert signals.first == signal.SIGTERM
