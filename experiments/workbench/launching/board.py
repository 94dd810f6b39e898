"""The display of a launch: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from experiments.cli.progress import duration
from experiments.workbench.launching.launcher import Job, State

_SECONDS_BETWEEN_LINES = 60.0  # on one and the same run, where there is no terminal
_STYLES = {State.RUNNING: "cyan", State.FINISHED: "green", State.FAILED: "red", State.STOPPED: "yellow"}
_FIRST = (State.FAILED, State.RUNNING, State.ELSEWHERE, State.STOPPED, State.WAITING, State.FINISHED)
_FRAME_LINES = 6  # of the table itself


class Board:
    """Shows jobs, and is the context in which its live table is shown."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = Console() if console is None else console
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._known: dict[int, tuple[State, float]] = {}  # by a job's place: its state, and when a line was printed
        self._shown_at = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, jobs: Sequence[Job]) -> None:
        now = time.monotonic()
        if self._live is None:
            self._print_news(jobs, now)
        elif now - self._shown_at >= 1 or all(job.state.is_over for job in jobs):
            self._live.update(table(jobs, self._console.height - _FRAME_LINES), refresh=True)
            self._shown_at = now

    def _print_news(self, jobs: Sequence[Job], now: float) -> None:
        for place, job in enumerate(jobs):
            state, printed_at = self._known.get(place, (State.WAITING, now))
            is_due = job.state is State.RUNNING and now - printed_at >= _SECONDS_BETWEEN_LINES
            if job.state is not state or is_due:
                self._console.print(line(job), highlight=False, soft_wrap=True, markup=False)
                self._known[place] = (job.state, now)


def line(job: Job) -> str:
    """What a job does, in one line."""
    if job.label == "running" and job.standing.iteration:
        iteration, score, _, speed, left = _cells(job)
        return f"{job.title}: {iteration}, score {score}, {speed} samples/s, {left} left"
    if job.state is State.FINISHED and job.standing.test_score is not None:
        return f"{job.title}: finished, {_number(job.standing.test_score)} on test tasks ({job.path})"
    if job.state is State.FAILED:
        return "\n".join((f"{job.title}: failed ({job.path or 'not begun'})", *(f"    {text}" for text in job.failure)))
    return f"{job.title}: {job.label}{f' ({job.path})' if job.path else ''}"


def table(jobs: Sequence[Job], height: int | None = None) -> Table:
    """All jobs, a row each; those of most interest, where there are only so many rows."""
    shown = list(jobs)
    if height is not None and len(jobs) > max(height, 1):
        shown = sorted(jobs, key=lambda job: _FIRST.index(job.state))[: max(height, 1)]
    counts = Counter(job.state for job in jobs)
    caption = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    if len(shown) < len(jobs):
        caption += f"; {len(jobs) - len(shown)} of them not shown"
    columns = Table(caption=caption, caption_justify="left")
    columns.add_column("experiment", overflow="fold")
    for name in ("seed", "state", "iteration", "score", "test", "samples/s", "left"):
        columns.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    for job in shown:
        state = f"[{_STYLES[job.state]}]{job.label}[/]" if job.state in _STYLES else job.label
        columns.add_row(job.planned.title.replace("[", r"\["), str(job.planned.seed), state, *_cells(job))
    return columns


def _cells(job: Job) -> tuple[str, str, str, str, str]:
    """Iteration, score on training tasks, score on test tasks, speed and time left."""
    now, total = job.standing, job.planned.num_iterations
    is_running = job.state is State.RUNNING
    iteration = f"{now.iteration}/{total}" if now.iteration or is_running else f"-/{total}"
    speed = f"{now.speed:,.0f}" if is_running and now.speed is not None else ""
    left = duration(now.seconds_left) if is_running and now.seconds_left is not None else ""
    return iteration, _number(now.score), _number(now.test_score), speed, left


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
