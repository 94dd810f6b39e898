"""Many runs at once: planned, interrupted in every way, and gone on with to the same ends."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from experiments.workbench.launching import worker
from experiments.workbench.launching.board import Board, table
from experiments.workbench.launching.engines import ENGINES, LocalEngine, RayEngine, SlurmEngine
from experiments.workbench.launching.launcher import Job, State, execute, jobs_of
from experiments.workbench.launching.plan import PlannedExperiment, parse_seeds, planned_runs
from experiments.workbench.launching.standing import OUTPUT, Standing, last_lines, output_size, standing
from metarl.errors import UserError
from metarl.run.directory import Run
from metarl.trainer import train
from tests.experiments.command import run as metarl

RECIPE = '''
"""RL2 on a tiny bandit."""
from agents.rl2 import RL2Config
from envs.torch_families.bandits import BernoulliBandit
from experiments import Experiment, TrainConfig

experiment = Experiment(
    family=BernoulliBandit(num_arms=2, num_pulls=3),
    agent=RL2Config(hidden_size=8, head_sizes=(8,)),
    train=TrainConfig(num_iterations=50, num_tasks=4, eval_every=0, eval_tasks=5, checkpoint_every=3),
)
'''
BRIEF = ("--train.num-iterations", "2")


@pytest.fixture(autouse=True)
def recipe(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("recipe.py").write_text(RECIPE)
    return "recipe.py"


def silently(jobs) -> None:
    """Show nothing of them."""


def state_at_the_end(path: Path | None):
    assert path is not None
    state = Run(path).load("latest")
    return state["iteration"], state["num_samples"], state["agent"], state["generators"]


def assert_equal(left, right) -> None:
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_equal(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_equal(one, other)
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    else:
        assert left == right


def undisturbed(seed: int):
    """The state after a training in this process, which nothing interrupts."""
    experiment = PlannedExperiment("recipe.py", ("--seed", str(seed))).settings()[0]
    run = Run.create_at(Path(f"undisturbed_{seed}"), {}, [])
    train(experiment.trainer(), run)
    run.close()
    return state_at_the_end(run.path)


# Plans


def test_each_experiment_is_planned_with_each_seed():
    runs = planned_runs(["recipe.py", "bernoulli_bandit/rl2"], [0, 3], BRIEF)
    assert [(run.experiment.name, run.seed) for run in runs] == [
        ("recipe.py", 0),
        ("recipe.py", 3),
        ("bernoulli_bandit/rl2", 0),
        ("bernoulli_bandit/rl2", 3),
    ]
    assert {run.num_iterations for run in runs} == {2}


def test_a_plan_takes_choices_of_configurations():
    (run,) = planned_runs(["recipe.py"], None, ("--agent.memory", "snail", "--agent.memory.filters", "8"))
    assert run.config["agent"]["memory"]["filters"] == [8]


def test_what_is_named_twice_is_planned_once():
    assert len(planned_runs(["recipe.py", "./recipe.py", "recipe.py"], None, ())) == 1


def test_a_plan_lists_experiments_as_text_and_as_values():
    Path("plan.py").write_text(
        "from dataclasses import replace\n"
        "from experiments import load\n"
        "bandit = load('bernoulli_bandit/rl2')\n"
        "experiments = ['recipe.py --agent.hidden-size 16', 'bernoulli_bandit/rl2', replace(bandit, seed=4)]\n"
    )
    runs = planned_runs(["plan.py"], None, ())
    assert [run.title for run in runs] == ["recipe.py --agent.hidden-size 16", "bernoulli_bandit/rl2", "plan.py[2]"]
    assert [run.seed for run in runs] == [0, 0, 4]
    assert runs[0].config["agent"]["hidden_size"] == 16
    assert {run.seed for run in planned_runs(["plan.py"], [7], ())} == {7}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("experiments = []", "must be a list of experiments, and not empty"),
        ("experiments = [3]", r"experiments\[0\] is 3; must be an Experiment"),
        ("experiments = ['grid_navi/rl3']", "did you mean grid_navi/rl2"),
        ("experiments = ['other.py']", "there is no recipe at other.py"),
        ("import nowhere", "does not load: ModuleNotFoundError"),
        (
            "from experiments import load\nexperiments = [load('own_robot/rl2')]",
            r"plan.py\[0\] has parts that only Python can hold; name its recipe",
        ),
    ],
)
def test_a_wrong_plan_is_one_line(content, message):
    Path("plan.py").write_text(content)
    with pytest.raises(UserError, match=message):
        planned_runs(["plan.py"], None, ())


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [0, 1, 2]), ("0,3,7", [0, 3, 7]), ("7,", [7]), ("2,2", [2]), ("1", [0])]
)
def test_seeds_are_a_number_of_them_or_a_list(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["0", "-1", "a", "1,b", "", ",", "1.5", "0,-3"])
def test_a_word_that_names_no_seeds_is_refused(text):
    with pytest.raises(UserError, match=r"--seeds is .*; must be a number of seeds"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "which experiments?"),
        (("--seeds", "3"), "the experiments come first"),
        (("nothing.py",), "there is no recipe or plan at nothing.py"),
        (("recipe.py", "--jobs", "0"), "--jobs is 0; must be at least 1"),
        (("recipe.py", "--threads-per-run", "-1"), "--threads-per-run is -1; must be at least 1"),
        (("recipe.py", "--agent.hiden-size", "3"), "did you mean --agent.hidden-size?"),
        (("recipe.py", "--seeds", "2", "--seed", "3"), "recipe.py is given --seed, and --seeds too"),
        (("recipe.py", "--executor", "condor"), "--executor is 'condor'"),
    ],
)
def test_a_wrong_command_is_one_line_and_starts_nothing(capsys, words, message):
    status, output, errors = metarl(capsys, "launch", *words)
    assert (status, output) == (2, "")
    assert message in errors
    assert errors.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize(("executor", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_an_executor_that_is_not_installed_is_one_line(capsys, monkeypatch, executor, package):
    monkeypatch.setitem(sys.modules, package, None)
    status, _, errors = metarl(capsys, "launch", "recipe.py", "--executor", executor)
    assert status == 2
    assert f"--executor {executor} needs {package}: pip install 'metarl[{executor}]'" in errors
    assert errors.count("\n") == 1


def test_a_dry_run_shows_the_plan_and_makes_nothing(capsys):
    status, output, _ = metarl(capsys, "launch", "recipe.py", "--seeds", "0,7", "--jobs", "3", "--dry-run")
    assert status == 0
    assert "-/50" in output
    assert "2 waiting" in output
    assert "3 at once, threads per run: 1" in output
    assert not Path("runs").exists()


# Where runs stand


def test_a_run_is_found_again_by_its_settings_and_not_by_its_name():
    wanted, other = planned_runs(["recipe.py"], [0, 1], BRIEF)
    path = other.create().path
    assert [job.path for job in jobs_of([wanted, other])] == [None, path]
    (path / "config.json").write_text("{")
    assert [job.path for job in jobs_of([wanted, other])] == [None, None]


def test_a_run_is_finished_once_its_last_iteration_is_evaluated(tmp_path):
    file = tmp_path / "evaluation_test.json"
    for content, is_finished in (
        ('{"iteration": 2, "points": [{"mean": 1}, {"mean": 3}]}', True),
        ('{"iteration": 1, "points": [{"mean": 1}]}', False),
        ('{"iteration": 2', False),
        ("[]", False),
    ):
        file.write_text(content)
        assert standing(tmp_path, 2).is_finished is is_finished
    assert standing(tmp_path / "nowhere", 2) == Standing()


def test_the_standing_is_that_of_the_last_whole_row(tmp_path):
    row = {"time/iterations": 4, "time/time_elapsed": 8.0, "time/fps": 50.0, "time/total_timesteps": 9}
    for score in ({"meta_train/return/total": 1.5, "train/query_x": 2.0}, {"train/query_mse": 1.5}):
        lines = [json.dumps({**row, "time/iterations": 3}), json.dumps({**row, **score}), '{"time/iter']
        (tmp_path / "progress.json").write_text("\n".join(lines))
        assert standing(tmp_path, 10) == Standing(4, 1.5, 50.0, 12.0)


def test_the_last_lines_are_those_that_were_printed_since_the_start(tmp_path):
    assert last_lines(tmp_path) == []
    (tmp_path / "output.txt").write_text("old\n")
    before = output_size(tmp_path)
    assert last_lines(tmp_path, before) == []
    (tmp_path / "output.txt").write_text("old\n1\n\n2  \n3\n4\n5\n6")
    assert last_lines(tmp_path, before) == ["2", "3", "4", "5", "6"]


def test_many_jobs_fit_the_terminal_with_those_that_failed_first():
    jobs = [Job(run) for run in planned_runs(["recipe.py"], list(range(30)), ())]
    jobs[20].state, jobs[25].state = State.FAILED, State.RUNNING
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table(jobs, 5))
    lines = console.export_text().splitlines()
    assert ["20" in lines[3], "failed" in lines[3], "25" in lines[4], "running" in lines[4]] == [True] * 4
    assert "25 of them not shown" in lines[-1]


def test_away_from_a_terminal_each_change_of_a_run_is_one_line():
    job = Job(planned_runs(["recipe.py"], [3], ())[0])
    output = io.StringIO()
    with Board(Console(file=output, width=40)) as board:
        for state in (State.WAITING, State.RUNNING, State.RUNNING, State.STOPPED):
            job.state = state
            board([job])
    assert output.getvalue() == "recipe.py, seed 3: running\nrecipe.py, seed 3: stopped\n"


# Launching


class InThisProcess(LocalEngine):
    """Runs that are over as soon as they are started."""

    def start(self, run: Path) -> Any:
        with (run / OUTPUT).open("a") as output, redirect_stdout(output), redirect_stderr(output):
            status = worker.train(str(run), str(Path.cwd()))
        return SimpleNamespace(poll=lambda: status, failure=None)


@pytest.mark.parametrize("engine", [InThisProcess, pytest.param(LocalEngine, marks=pytest.mark.slow)])
def test_a_run_that_crashes_stops_no_other_and_those_that_are_finished_are_left_as_they_are(
    capsys, monkeypatch, engine
):
    monkeypatch.setitem(ENGINES, "local", engine)
    path = planned_runs(["recipe.py"], [0], BRIEF)[0].create().path
    (path / "checkpoints" / "latest.pt").write_bytes(b"damaged")
    status, output, errors = metarl(capsys, "launch", "recipe.py", "--seeds", "2", "--jobs", "2", *BRIEF)
    assert status == 1
    title = "recipe.py, seed"
    assert f"{title} 0: failed ({path})\n    exit status 2\n    metarl: cannot read checkpoint" in output
    assert f"{title} 1: finished" in output
    assert errors == "Go on with: metarl launch recipe.py --seeds 2 --jobs 2 --train.num-iterations 2\n"

    (whole,) = Path("runs/bernoulli_bandit/rl2").glob("*_s1")
    before = {file: file.stat().st_mtime for file in whole.rglob("*")}
    status, output, _ = metarl(capsys, "launch", "recipe.py", "--seeds", "1,", *BRIEF)
    assert (status, output.count("finished")) == (0, 1)
    assert {file: file.stat().st_mtime for file in whole.rglob("*")} == before
    command = json.loads((whole / "meta.json").read_text())["command"]
    assert command == "metarl train recipe.py --seed 1 --train.num-iterations 2"


@pytest.mark.slow
def test_runs_that_were_killed_or_stopped_end_as_those_that_were_not():
    jobs = jobs_of(planned_runs(["recipe.py"], [0, 1], ()))

    signals: list[int] = []

    def kill_the_first_and_interrupt_the_second(jobs) -> None:
        first, second = (standing(job.path, 50).iteration if job.path is not None else 0 for job in jobs)
        if first > 3 and jobs[0].task is not None:
            jobs[0].task.kill()
        if second <= 3 or jobs[1].state is not State.RUNNING:
            return
        if signals:  # the launcher has asked it to stop, which it learns once it goes on
            os.kill(jobs[1].task._process.pid, signal.SIGCONT)
            return
        os.kill(jobs[1].task._process.pid, signal.SIGSTOP)  # it waits, however long the first one takes
        if jobs[0].state is State.FAILED:
            signals.append(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    assert execute(jobs, LocalEngine(1), 2, kill_the_first_and_interrupt_the_second) == 130
    assert [job.state for job in jobs] == [State.FAILED, State.STOPPED]
    assert jobs[0].failure[0] == "killed by SIGKILL"
    assert all(3 < job.standing.iteration < 50 for job in jobs)

    jobs = jobs_of(planned_runs(["recipe.py"], [0, 1], ()))
    assert execute(jobs, LocalEngine(1), 2, silently) == 0
    assert len(list(Path("runs/bernoulli_bandit/rl2").iterdir())) == 2
    for job in jobs:
        assert_equal(state_at_the_end(job.path), undisturbed(job.planned.seed))


@pytest.mark.slow
def test_a_launcher_that_is_killed_leaves_runs_that_the_next_one_goes_on_with():
    words = [sys.executable, "-P", "-m", "experiments", "launch", "recipe.py", "--seeds", "2", "--jobs", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    launcher = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if len(files := list(Path("runs").glob("*/*/*/progress.json"))) == 2 and all(
            file.stat().st_size for file in files
        ):
            break
        time.sleep(0.1)
    launcher.kill()
    launcher.wait()
    again = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    jobs = jobs_of(planned_runs(["recipe.py"], [0, 1], ()))
    assert len(list(Path("runs/bernoulli_bandit/rl2").iterdir())) == 2
    for job in jobs:
        assert_equal(state_at_the_end(job.path), undisturbed(job.planned.seed))


# Engines that are extras


@pytest.mark.slow
def test_a_killed_ray_worker_is_retried_from_its_checkpoint():
    pytest.importorskip("ray")
    jobs = jobs_of(planned_runs(["recipe.py"], [0], ()))
    killed = []

    def kill_once(jobs) -> None:
        if not killed and jobs[0].path is not None and standing(jobs[0].path, 120).iteration > 3:
            workers = subprocess.run(["pgrep", "-f", "^ray::train"], capture_output=True, text=True).stdout.split()
            killed.extend(int(worker) for worker in workers)
            os.kill(killed[0], signal.SIGKILL)

    assert execute(jobs, RayEngine(1), 1, kill_once) == 0, last_lines(Path(jobs[0].path or ""))
    assert len(killed) == 1
    assert_equal(state_at_the_end(jobs[0].path), undisturbed(0))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of submitit's own processes
def test_a_job_of_submitit_trains_the_run():
    pytest.importorskip("submitit")
    jobs = jobs_of(planned_runs(["recipe.py"], [0], ()))
    engine = SlurmEngine(1, cluster="local")  # submitit's own stand-in for a cluster
    assert execute(jobs, engine, 1, silently) == 0, jobs[0].failure
    assert_equal(state_at_the_end(jobs[0].path), undisturbed(0))


def test_a_slurm_job_that_an_earlier_launch_submitted_is_watched_and_not_submitted_again(tmp_path, monkeypatch):
    class JobOfYesterday:
        def __init__(self, folder: Path, job_id: str) -> None:
            self.job_id = job_id

        def done(self, force_check: bool = False) -> bool:
            return self.job_id == "12"

    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(SlurmJob=JobOfYesterday))
    monkeypatch.setattr(shutil, "which", lambda name: name)
    (tmp_path / "submitit").mkdir()
    for number in (12, 13):
        (tmp_path / "submitit" / f"{number}_submitted.pkl").touch()
    task = SlurmEngine(1).start(tmp_path)
    assert task.poll() is None
    assert vars(task)["_job"].job_id == "13"


@pytest.mark.skipif(shutil.which("srun") is not None, reason="this machine has Slurm")
def test_a_machine_without_slurm_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace())
    with pytest.raises(UserError, match="finds no Slurm on this machine: there is no srun"):
        SlurmEngine(1)


def test_what_a_run_prints_is_not_written_through_a_link(tmp_path):
    run, other = tmp_path / "run", tmp_path / "other.txt"
    run.mkdir()
    (run / "output.txt").symlink_to(other)
    with pytest.raises(UserError, match=r"run/output.txt: must be a file of the run's own"):
        LocalEngine(1, 0).start(run)
    assert not other.exists()
