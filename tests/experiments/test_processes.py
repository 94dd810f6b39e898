"""A training by several processes of this machine: what it writes, and what it does when one of them dies."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from metarl.run.directory import Run

pytestmark = pytest.mark.learn

ROOT = Path(__file__).resolve().parents[2]
SHORT = ["sinusoid/maml", "--train.num-iterations", "120", "--train.num-tasks", "5", "--train.eval-tasks", "10"]
SHORT += ["--train.checkpoint-every", "10", "--train.eval-every", "0"]


def start(*words: str, module: str | None = "experiments", **more: str) -> subprocess.Popen[str]:
    """Run `python -m MODULE WORDS`; the first word is the module where none is given. more: environment variables."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}
    command = [sys.executable, "-m", *([] if module is None else [module]), *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*words: str) -> str:
    process = start(*words)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    return stderr


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def workers(process: subprocess.Popen[str]) -> list[int]:
    """The processes that train, which the launching process has started."""
    return [pid for pid in children(process.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.02)


def wait_for_rows(path: Path, count: int) -> None:
    """Wait until a run has logged this many iterations."""
    log = path / "progress.json"
    wait_until(lambda: log.is_file() and len(log.read_text().splitlines()) >= count, f"{path} has too few iterations")


def num_connections(port: int) -> int:
    """The number of connections to a port of this machine."""
    lines = [line.split() for file in ("tcp", "tcp6") for line in Path(f"/proc/net/{file}").read_text().splitlines()]
    return sum(line[1].endswith(f":{port:04X}") and line[3] == "01" for line in lines)


def wait_for_port(port: int) -> None:
    """Wait until something listens on a port of this machine."""

    def answers() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    wait_until(answers, f"nothing listens on port {port}")


def learned(path: Path) -> dict[str, torch.Tensor]:
    state = Run.open(path).load("latest")["agent"]["adaptation"]
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def curve(path: Path) -> list[float]:
    return [json.loads(line)["train/query_mse"] for line in (path / "progress.json").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    run("train", *SHORT, "--processes", "2", "--run-dir", str(path))
    return path


def test_it_leaves_what_a_run_of_one_process_leaves(undisturbed, tmp_path):
    run("train", *SHORT, "--run-dir", str(tmp_path / "one"))
    left = {file.name for file in (tmp_path / "one").iterdir() if not file.name.startswith("events.")}
    assert {file.name for file in undisturbed.iterdir() if not file.name.startswith("events.")} == left
    assert curve(undisturbed) == pytest.approx(curve(tmp_path / "one"), rel=1e-5)
    rows = [json.loads(line) for line in (undisturbed / "progress.json").read_text().splitlines()]
    assert all(0 < row["time/communication_share"] < 1 for row in rows)


@pytest.mark.parametrize("seed", range(int(os.environ.get("METARL_KILLS", "2"))))
def test_a_killed_process_changes_no_bit_of_what_is_learned(undisturbed, tmp_path, seed):
    chance = random.Random(seed)
    process = start("train", *SHORT, "--processes", "2", "--run-dir", str(tmp_path / "run"))
    wait_for_rows(tmp_path / "run", chance.randrange(1, 100))
    time.sleep(0.03 * chance.random())
    os.kill(chance.choice(workers(process)), signal.SIGKILL)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert "goes on after iteration" in stderr or "starts from the beginning" in stderr
    mine, theirs = learned(tmp_path / "run"), learned(undisturbed)
    assert mine
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    assert curve(tmp_path / "run") == curve(undisturbed)


def test_an_interrupt_saves_once_and_any_number_of_processes_may_go_on(undisturbed, tmp_path):
    process = start("train", *SHORT, "--processes", "2", "--run-dir", str(tmp_path / "run"))
    wait_for_rows(tmp_path / "run", 30)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    assert stderr.count("Saved iteration") == 1
    run("resume", str(tmp_path / "run"), "--processes", "3")
    assert curve(tmp_path / "run") == pytest.approx(curve(undisturbed), rel=1e-5)


def test_an_error_of_the_user_is_one_line_and_not_tried_again(tmp_path):
    process = start("train", "sinusoid/maml", "--train.num-tasks", "1", "--processes", "2", "--run-dir", str(tmp_path))
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 2
    assert stderr == "metarl: num_tasks is 1; must be at least 2, the number of processes\n"


def machine(port: int, path: Path, *more: str, patience: int = 2) -> subprocess.Popen[str]:
    """A machine's torchrun of a training by one or two machines with a process each.

    patience: the number of seconds after which a machine without a sign of life counts as gone.
    """
    settings = f"last_call_timeout=15,keep_alive_interval=1,keep_alive_max_attempt={patience}"
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-conf", settings]
    command = ["torch.distributed.run", "--nnodes", "1:2", "--nproc-per-node", "1", "--max-restarts", "3", *rendezvous]
    command += ["--rdzv-id", "together", "-m", "experiments", "train", *SHORT, *more, "--run-dir", str(path)]
    return start(*command, module=None, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")  # as docs/scaling.md says


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_machine_that_leaves_changes_the_number_of_processes_and_nothing_else(undisturbed, port, tmp_path):
    path = tmp_path / "run"
    stays = machine(port, path)
    wait_for_port(port)  # it holds the rendezvous, so that the other one can go
    leaves = machine(port, path)
    with stays, leaves:  # whose pipes are closed at the end
        try:
            wait_for_rows(path, 20)
            for pid in (*children(leaves.pid), leaves.pid):
                os.kill(pid, signal.SIGKILL)
            _, stderr = stays.communicate(timeout=300)
            assert stays.returncode == 0, stderr
            assert curve(path) == pytest.approx(curve(undisturbed), rel=1e-5)
        finally:
            for process in (stays, leaves):
                process.kill()


def test_a_machine_that_joins_changes_the_number_of_processes_and_nothing_else(port, tmp_path):
    longer = ("--train.num-iterations", "3000", "--train.checkpoint-every", "100")  # there must be time to join
    run("train", *SHORT, *longer, "--run-dir", str(tmp_path / "one"))
    path = tmp_path / "run"
    first = machine(port, path, *longer, patience=60)
    wait_for_rows(path, 5)
    (worker,) = children(first.pid)
    os.kill(worker, signal.SIGSTOP)  # until the second machine is there
    alone = num_connections(port)
    second = machine(port, path, *longer, patience=60)
    with first, second:
        try:
            wait_until(lambda: num_connections(port) > alone, "the second machine has not come")
            os.kill(worker, signal.SIGCONT)
            for process in (first, second):
                _, stderr = process.communicate(timeout=300)
                assert process.returncode == 0, stderr
            rows = [json.loads(line) for line in (path / "progress.json").read_text().splitlines()]
            joined = sum("time/communication_share" not in row for row in rows)
            assert 0 < joined < len(rows)
            near = slice(joined + 100)  # later, the order of sums has grown into differences that show
            assert curve(path)[near] == pytest.approx(curve(tmp_path / "one")[near], rel=1e-4)
        finally:
            for process in (first, second):
                process.kill()
