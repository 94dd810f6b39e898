"""A worker process that another interpreter runs, as our side of the pipe sees it."""

from __future__ import annotations

import os
import selectors
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from envs.external.metaworld import worker
from envs.external.workers import SECONDS_TO_CLOSE, WorkerDied

SECONDS_TO_START = 120.0  # for the package to be imported, on a busy machine with a cold disk


class Failed(Exception):  # noqa: N818, it is what has happened
    """The worker answered that a request has failed; the message is one line."""


class MetaworldProcess:
    """A process of another interpreter that runs worker.py; with `make_rows` it holds rows, as a `RowsHolder`."""

    def __init__(self, python: Path) -> None:
        """Start the process and wait until the package is imported.

        Raises:
            WorkerDied: when it ends before, or has no such package.
        """
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed with the process
        self._method, self._limit = "versions", SECONDS_TO_START
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        try:
            self.process = subprocess.Popen(
                [str(python), worker.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment,
            )
        except OSError as error:
            raise WorkerDied(f"{python} cannot be run: {error}", None) from error
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._requests: BinaryIO = self.process.stdin  # pyright: ignore[reportAttributeAccessIssue]
        self._answers: BinaryIO = self.process.stdout  # pyright: ignore[reportAttributeAccessIssue]
        try:
            (self.versions,) = self.call("versions")
        except Failed as failure:
            self.stop()
            raise WorkerDied(f"{python}: {failure}", None) from failure
        if self.versions["protocol"] != worker.PROTOCOL:
            raise WorkerDied(f"{python} runs another version of {worker.__file__}", None)

    def hold(self, num_rows: int, settings: Sequence[Any], step_timeout: float | None) -> MetaworldProcess:
        """Hold this many rows of the given settings, those of `worker.Rows`.

        step_timeout: seconds that one row's step or start may take, after which the process is ended; None: no limit.
        """
        self.call("make_rows", num_rows, *settings)
        self._limit = None if step_timeout is None else step_timeout * num_rows
        return self

    def call(self, method: str, *arguments: Any) -> list[Any]:
        """Ask, and wait for the answer."""
        self.ask(method, *arguments)
        return self._read()

    def ask(self, method: str, *arguments: Any) -> None:
        self._method = method
        content = [None if isinstance(argument, np.ndarray) else argument for argument in arguments]
        arrays = [argument for argument in arguments if isinstance(argument, np.ndarray)]
        with suppress(OSError):  # nobody is at the other end of the pipe, as the answer will tell
            worker.write_message(self._requests, [method, content], arrays)

    def answer(self) -> Any:
        """What a method of `Rows` returned, in the form that `RowsHolder` has: errors by row.

        Raises:
            WorkerDied: when there is nobody left to answer.
        """
        values = self._read()
        if self._method not in ("start_rows", "step_rows"):
            return values
        errors = dict(values.pop())
        return (*values, errors, set()) if self._method == "step_rows" else (*values, errors)

    def stop(self) -> None:
        """Close the pipes, at which the process ends; end it with force if it doesn't."""
        for stream in (self._requests, self._answers):
            with suppress(OSError):
                stream.close()
        try:
            self.process.wait(SECONDS_TO_CLOSE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._errors.close()

    def _read(self) -> list[Any]:
        """The answer to the last request.

        Raises:
            Failed: when the request has failed.
            WorkerDied: when the process is gone or takes too long.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            if not selector.select(self._limit):
                self.process.kill()
                self.stop()
                raise WorkerDied(f"no answer within {self._limit:g} s (step_timeout)", None)
        try:
            content, arrays = worker.read_message(self._answers)
        except EOFError as error:
            raise WorkerDied(self._last_words(), None) from error
        if "error" in content:
            raise Failed(content["error"])
        found = iter(arrays)
        return [
            next(found) if array else value for array, value in zip(content["arrays"], content["result"], strict=True)
        ]

    def _last_words(self) -> str:
        """How the process ended, and the last line that it printed."""
        status = self.process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        self.stop()
        return f"its worker process ended with exit code {status}" + (f": {lines[-1]}" if lines else "")
