"""Executes a plan: several runs at once until all are finished, resuming existing ones."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import FrameType

from experiments.workbench.launching.engines import Engine, Task
from experiments.workbench.launching.plan import PlannedRun
from experiments.workbench.launching.standing import (
    Standing,
    existing_runs,
    is_locked,
    last_lines,
    output_size,
    standing,
)
from metarl.errors import UserError

ROOT = Path("runs")  # below which runs are made and found again
_POLL = 0.2  # seconds
_LOOK = 1.0  # seconds between two looks at a run's files
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class State(StrEnum):
    WAITING = "waiting"
    ELSEWHERE = "in another process"  # such as one that an earlier launcher left, which still saves
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"  # when asked to, with all saved
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        return self in (State.FINISHED, State.STOPPED, State.FAILED)


@dataclass
class Job:
    """One run of a plan, and how it fares."""

    planned: PlannedRun
    path: Path | None = None  # the run's directory; None until it has one
    state: State = State.WAITING
    task: Task | None = None
    standing: Standing = field(default_factory=Standing)
    printed_before: int = 0  # the size of its output when it was started, in bytes
    failure: list[str] = field(default_factory=list)  # lines that say why it failed

    @property
    def title(self) -> str:
        return f"{self.planned.title}, seed {self.planned.seed}"

    @property
    def label(self) -> str:
        """The state in words; a run whose iterations are done is still evaluated."""
        is_trained = self.standing.iteration >= self.planned.num_iterations
        return "evaluating" if self.state is State.RUNNING and is_trained else str(self.state)

    def look(self) -> None:
        """Read from its files how far it is."""
        if self.path is not None:
            self.standing = standing(self.path, self.planned.num_iterations)


def jobs_of(plan: Sequence[PlannedRun], root: Path = ROOT) -> list[Job]:
    """The plan's runs as they stand: of several with one run's settings, a finished one, or the one made last."""
    existing = existing_runs(root)
    jobs = []
    for planned in plan:
        paths = [run.path for run in existing.get(planned.identity, ())]
        finished = [path for path in paths if standing(path, planned.num_iterations).is_finished]
        job = Job(planned, next(iter(finished or paths), None))
        job.look()
        job.state = State.FINISHED if finished else State.WAITING
        jobs.append(job)
    return jobs


def execute(jobs: Sequence[Job], engine: Engine, at_once: int, show: Callable[[Sequence[Job]], None]) -> int:
    """Run all jobs that are not finished, `at_once` of them at a time; returns an exit status.

    The status is 0 when all are finished, 1 when some failed or were stopped from outside, and 128 + n after signal n.
    The first SIGINT or SIGTERM asks all runs to save and stop, a second one ends them at once.
    show: called again and again with all jobs.
    """
    looked_at = -_LOOK
    with noted_signals() as signals:
        stopping = 0  # signals acted on
        try:
            while True:
                if len(signals) > stopping:
                    stopping = len(signals)
                    _stop(jobs, at_once=stopping > 1)
                for job in jobs:
                    _advance(job)
                if not signals:
                    _start_waiting(jobs, engine, at_once)
                if time.monotonic() - looked_at >= _LOOK:
                    for job in jobs:
                        if job.state in (State.RUNNING, State.ELSEWHERE):
                            job.look()
                    looked_at = time.monotonic()
                show(jobs)
                if all(job.state.is_over for job in jobs):
                    break
                time.sleep(_POLL)
        finally:
            engine.close()
    if signals:
        return 128 + signals[0]
    return 0 if all(job.state is State.FINISHED for job in jobs) else 1


def _advance(job: Job) -> None:
    """Note the end of a run, or of the other process that had it."""
    if job.state is State.ELSEWHERE and job.path is not None and not is_locked(job.path):
        job.look()
        job.state = State.FINISHED if job.standing.is_finished else State.WAITING
    if job.task is None or (status := job.task.poll()) is None:
        return
    task, job.task = job.task, None
    assert job.path is not None
    job.look()
    if status == 0 and job.standing.is_finished:
        job.state = State.FINISHED
    elif is_locked(job.path):
        job.state = State.ELSEWHERE
    elif status in [sign * number + base for number in _SIGNALS for sign, base in ((1, 128), (-1, 0))]:
        job.state = State.STOPPED
    else:
        job.state = State.FAILED
        job.failure = [how(status), *last_lines(job.path, job.printed_before), *filter(None, [task.failure])]


def how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"


def _start_waiting(jobs: Sequence[Job], engine: Engine, at_once: int) -> None:
    free = at_once - sum(job.state is State.RUNNING for job in jobs)
    for job in [job for job in jobs if job.state is State.WAITING][: max(free, 0)]:
        if job.path is not None and is_locked(job.path):
            job.state = State.ELSEWHERE
            continue
        try:
            job.path = job.planned.create().path if job.path is None else job.path
            job.printed_before = output_size(job.path)
            job.task = engine.start(job.path)
            job.state = State.RUNNING
        except (UserError, OSError) as error:  # such as of a disk that is full, or a recipe that was just changed
            job.state, job.failure = State.FAILED, [str(error)]


def _stop(jobs: Sequence[Job], *, at_once: bool) -> None:
    for job in jobs:
        if job.task is not None:
            job.task.kill() if at_once else job.task.stop()
        elif not job.state.is_over:
            job.state = State.STOPPED


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM only leave their numbers in a list."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
