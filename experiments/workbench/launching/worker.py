"""What trains a run in a process of its own: `metarl resume RUN`, which begins a run that has no checkpoint yet.

As a program it reads its standard input, which its launcher holds open: once the launcher is gone, even by kill -9, the
run is asked to save and stop, as by SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from metarl.run.files import open_to_append


def train(run: str, folder: str, output: str | None = None) -> int:
    """Train the run in a directory to its end from where it is; returns the command's exit status.

    folder: the working directory. output: the file that standard output and errors are appended to; None: as they are.
    """
    if output is not None:
        descriptor = open_to_append(Path(output))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
    os.chdir(folder)
    from experiments.cli.main import main

    try:
        main(["resume", run])
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


class Training:
    """`train` as submitit wants it: a job that Slurm stops before its end is queued again and resumes."""

    def __call__(self, run: str, folder: str, output: str) -> int:
        return train(run, folder, output)

    def checkpoint(self, run: str, folder: str, output: str) -> object:
        from submitit.helpers import DelayedSubmission  # pyright: ignore[reportMissingImports], an extra

        return DelayedSubmission(self, run, folder, output)


def stop_with_launcher() -> None:
    """From now on, the end of standard input asks this process to save and stop."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    stop_with_launcher()
    sys.exit(train(sys.argv[1], str(Path.cwd())))
