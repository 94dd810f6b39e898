"""One training by several processes of this machine, which torchrun's elastic agent starts, watches and restarts.

`torchrun --nproc-per-node R -m experiments train ...` does the same on one or several machines.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from metarl.errors import UserError
from metarl.parallel import ProcessLost, is_launched
from metarl.run.directory import Run
from metarl.run.provenance import job

RESTARTS = 3  # how often lost processes start again, unless asked otherwise
_SECONDS_TO_SAVE = 600  # after a signal: an iteration is finished and saved
_SECONDS_TO_TELL = 2.0  # between the end of one process and what the others notice of it


def check_processes(processes: int, max_restarts: int) -> None:
    """Check the arguments of a training's processes.

    Raises:
        UserError: when a number is too small, or torchrun has started another number of processes.
    """
    if processes < 1:
        raise UserError(f"--processes is {processes}; must be at least 1")
    if max_restarts < 0:
        raise UserError(f"--max-restarts is {max_restarts}; must be 0 or more")
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if is_launched() and processes not in (1, started):
        raise UserError(f"--processes is {processes}; must be left out, as torchrun has started {started}")


def goes_on(run_dir: Path) -> bool:
    """Whether this process is to go on with the run in a directory, which its own job has made.

    The elastic agent starts a job's processes anew when one has ended, and when a machine has come or gone. A torchrun
    without `--rdzv-id` cannot tell its own run from another; then only a process that has ended counts.
    """
    if not (run_dir / "config.json").is_file():
        return False
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    return again or (job() is not None and Run.open(run_dir).meta().get("job") == job())


def launch(argv: Sequence[str], processes: int, max_restarts: int, run_path: Path) -> int:
    """Run a command by several processes; returns its exit status.

    A process that ends by a signal, or waits in vain for another, ends all; they start again from the run's last
    checkpoint, up to `max_restarts` times. Errors and interrupts that a process reports are not tried again.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("torch.distributed.elastic", "torch.multiprocessing", "torch.distributed.run"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what has happened is said below, in a line
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(_SECONDS_TO_SAVE))
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")  # each start has a store of its own
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=max_restarts,
        monitor_interval=0.1,
        start_method="spawn",
    )
    with tempfile.TemporaryDirectory(prefix="metarl-") as folder, contextlib.ExitStack() as at_end:
        at_end.callback(_remove_if_empty, run_path)
        try:
            statuses = elastic_launch(config, work)(list(argv), folder)
        except SignalException as stop:
            return 128 + int(stop.sigval)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            how = f"signal {-failure.exitcode}" if failure.exitcode < 0 else f"status {failure.exitcode}"
            times = "" if max_restarts == 0 else f", {max_restarts} restarts included"
            print(
                f"metarl: process {rank} has ended with {how}{times}; what was saved before is in {run_path}",
                file=sys.stderr,
            )
            return 1
    return next((status for status in statuses.values() if status), 0)


def _remove_if_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rmdir()


def work(argv: list[str], folder: str) -> int:
    """Run a command as one of its processes; returns its exit status, which is noted for the others.

    folder: where the processes note how they have ended.
    """
    from experiments.cli.main import main
    from metarl.parallel import leave

    attempt, rank = os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["RANK"]
    status = 0
    try:
        main(argv)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    notes = Path(folder)
    if status == ProcessLost.exit_status:
        deadline = time.monotonic() + _SECONDS_TO_TELL
        while time.monotonic() < deadline and not list(notes.glob(f"{attempt}-*")):
            time.sleep(0.05)
        noted = [int(note.read_text() or 1) for note in notes.glob(f"{attempt}-*")]
        if not noted:
            os._exit(status)  # nobody has said why: the agent starts all anew
        return noted[0]
    (notes / f"{attempt}-{rank}").write_text(str(status))
    leave()
    if status > 128:  # after a signal: the agent, which has sent it, waits for processes that end, not for results
        os._exit(status)
    return status
