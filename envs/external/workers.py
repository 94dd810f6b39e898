"""Worker processes with rows of third-party environments, each a Gymnasium AsyncVectorEnv of one, or none at all.

AsyncVectorEnv cannot replace one of its workers, but one that is made anew can: so each worker has its own, whose only
"environment" is some rows. What is used of it is its processes and its calls; rows are stepped by `Rows`.

A worker is a fresh process ("forkserver", or "spawn" where there is none), as a fork would inherit the threads of torch
and of MuJoCo half alive. It does not import the program's main module, as such processes otherwise do: what it needs of
it comes by value. So it starts at once, and a script needs no `if __name__ == "__main__":` on its account.
"""

from __future__ import annotations

import functools
import math
import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from types import ModuleType
from typing import Any, Protocol

from gymnasium.vector import AsyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState

from envs.external.portable import registered_here
from envs.external.rows import NOWHERE, Rows

SECONDS_TO_CLOSE = 5.0  # that environments have, before their process is ended
SECONDS_TO_LOOK = 1.0  # between two looks at the row that a worker is stepping


class WorkerDied(Exception):  # noqa: N818, it is what has happened
    """A worker process is gone. `row` is the one it was at work on, or None where that is not known."""

    def __init__(self, reason: str, row: int | None) -> None:
        super().__init__(reason)
        self.row = row


class _RowAtWork:
    """A number that a worker writes and its owner reads, also when the worker is gone."""

    def __init__(self, context: Any) -> None:
        self._number = context.RawValue("i", NOWHERE)

    @property
    def value(self) -> int:
        return self._number.value

    @value.setter
    def value(self, row: int) -> None:
        self._number.value = row

    def __getstate__(self) -> bytes:
        """Shared memory travels by the pickler of multiprocessing alone, and not by Gymnasium's choice, cloudpickle."""
        return bytes(ForkingPickler.dumps(self._number))

    def __setstate__(self, state: bytes) -> None:
        self._number = pickle.loads(state)


class RowsHolder(Protocol):
    """Some rows, asked in two halves so that many holders can work at once."""

    def ask(self, method: str, *arguments: Any) -> None:
        """Begin a call of a method of `Rows`."""
        ...

    def answer(self) -> Any:
        """What it returned.

        Raises:
            WorkerDied: when there is nobody left to answer.
        """
        ...

    def stop(self) -> None:
        """Close the environments and end the process, if there is one."""
        ...


class InProcess:
    """Rows in this process."""

    def __init__(self, make_rows: Callable[..., Rows]) -> None:
        self._rows = make_rows()
        self._pending: Any = None

    def ask(self, method: str, *arguments: Any) -> None:
        self._pending = functools.partial(getattr(self._rows, method), *arguments)

    def answer(self) -> Any:
        return self._pending()

    def stop(self) -> None:
        self._rows.close()


class Worker(AsyncVectorEnv[Any, Any]):
    """Rows in a process of their own; `RowsHolder`."""

    def __init__(self, make_rows: Callable[..., Rows], step_timeout: float | None = None) -> None:
        """Start the process and wait until it is ready.

        step_timeout: seconds that one row's step or start may take, after which the process is ended; None: no limit.

        Raises:
            WorkerDied: when the process ends before it is ready.
        """
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        if method == "forkserver":
            multiprocessing.set_forkserver_preload([Rows.__module__])  # imported once, not by each worker
        self._step_timeout = step_timeout
        self._at_work = _RowAtWork(multiprocessing.get_context(method))
        make = functools.partial(make_rows, at_work=self._at_work, owner=os.getpid(), registered=registered_here())
        try:
            with _without_main_module():
                super().__init__([make], shared_memory=False, copy=False, context=method)
        except (EOFError, OSError) as error:
            raise WorkerDied(f"{self._end(gone=True)} before it was ready", None) from error

    def ask(self, method: str, *arguments: Any) -> None:
        try:
            self.call_async(method, *arguments)
        except OSError:  # nobody is at the other end of the pipe, as the answer will tell
            self._state = AsyncState.WAITING_CALL

    def answer(self) -> Any:
        try:
            self._wait()
            return self.call_wait()[0]
        except (EOFError, OSError) as error:
            row = self._at_work.value
            raise WorkerDied(self._end(gone=True), None if row == NOWHERE else row) from error

    def _wait(self) -> None:
        """Wait for an answer.

        Raises:
            WorkerDied: when one row takes too long; the process is ended.
        """
        row, since = self._at_work.value, time.monotonic()
        limit = math.inf if self._step_timeout is None else self._step_timeout
        while not self.parent_pipes[0].poll(min(SECONDS_TO_LOOK, limit)):
            now = time.monotonic()
            if self._at_work.value != row:
                row, since = self._at_work.value, now
            elif now - since >= limit:
                self._end()
                raise WorkerDied(f"no answer within {limit:g} s (step_timeout)", None if row == NOWHERE else row)

    def stop(self) -> None:
        """Close the environments; end the process, with force if they don't let go."""
        if self.closed:
            return
        try:
            if self._state == AsyncState.DEFAULT:
                self.call_async("stop_rows")
                self.call_wait(timeout=SECONDS_TO_CLOSE)
        except (EOFError, OSError, multiprocessing.TimeoutError):
            pass
        self._end()

    def _end(self, gone: bool = False) -> str:
        """End the process, whatever it does; how it ended by itself, if it has."""
        self._state = AsyncState.DEFAULT  # nothing is waited for any more
        if gone:
            self.processes[0].join(timeout=1.0)
        exit_code = self.processes[0].exitcode
        self.processes[0].kill()  # as an environment may have changed what SIGTERM does
        self.close(terminate=True)
        if exit_code is not None and exit_code < 0:
            return f"its worker process was killed by {signal.Signals(-exit_code).name}"
        return "its worker process ended" + ("" if exit_code is None else f" with exit code {exit_code}")


@contextmanager
def _without_main_module() -> Iterator[None]:
    """Processes that start meanwhile are not told what the main module is."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
