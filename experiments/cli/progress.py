"""The progress of a training: a bar on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from metarl.evaluation import Evaluation, Measure
from metarl.protocols import Split
from metarl.run.directory import Run
from metarl.trainer import Trainer

_SECONDS_BETWEEN_LINES = 30.0
_SHARE_BETWEEN_LINES = 0.05  # of all iterations
_WIDTH_FOR_BAR = 100  # characters; there is only the text in a terminal that is narrower
_SMOOTHING = 0.9  # of the speed, per iteration


class TrainingProgress:
    """A callback for `metarl.trainer.train`, and the context in which its bar is shown."""

    def __init__(self, trainer: Trainer, run: Run | None = None, console: Console | None = None) -> None:
        """run: where the training is saved, which is said at its start; None: not said."""
        self._heading = None if run is None else heading(trainer, run)
        self._console = Console(stderr=True) if console is None else console
        self._total = trainer.config.num_iterations
        self._first_iteration = trainer.iteration
        self._started = self._line_at = time.monotonic()
        self._line_iteration = trainer.iteration
        self._fps: float | None = None
        acts, tag = trainer.source.measure.name == "return", trainer.source.score_tag
        self._unit_rate = trainer.source.unit_rate
        collects = acts and tag.startswith("meta_train/")  # and shows returns at several points
        self._score_tag = None if collects else tag
        self._score_name = tag.rpartition("/")[2].replace("_", " ") if acts else trainer.source.measure.name
        count = TextColumn("{task.completed:.0f}/{task.total:.0f}")
        text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=False))
        columns = (count, BarColumn(bar_width=24), TaskProgressColumn(), TimeElapsedColumn(), text)
        if self._console.width < _WIDTH_FOR_BAR:
            columns = (count, text)
        self._bar = Progress(*columns, console=self._console, transient=True) if self._console.is_terminal else None
        self._task = self._bar and self._bar.add_task("starting", total=self._total, completed=trainer.iteration)

    def __enter__(self) -> Self:
        if self._heading is not None:
            self._console.print(self._heading, highlight=False, markup=False, soft_wrap=True)
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        fps = metrics["time/fps"]
        self._fps = fps if self._fps is None else _SMOOTHING * self._fps + (1 - _SMOOTHING) * fps
        text = self._text(trainer, metrics)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=trainer.iteration, description=text)
            return
        now = time.monotonic()
        enough = trainer.iteration - self._line_iteration >= _SHARE_BETWEEN_LINES * self._total
        if enough or now - self._line_at >= _SECONDS_BETWEEN_LINES or trainer.iteration == self._total:
            share = trainer.iteration / self._total
            line = f"{trainer.iteration}/{self._total} ({share:.0%})  {text}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
            self._line_at, self._line_iteration = now, trainer.iteration

    def evaluate(self, trainer: Trainer, split: Split) -> Evaluation:
        """The trainer's own evaluation on a split; the last ones, which may take long, are announced."""
        if trainer.iteration == self._total:
            name = "validation" if split == "val" else split
            text = f"evaluating on {trainer.config.eval_tasks:,} {name} tasks"
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, completed=trainer.iteration, description=text)
            else:
                self._console.print(text, highlight=False, soft_wrap=True)
        return trainer.evaluate(split)

    def _text(self, trainer: Trainer, metrics: Mapping[str, float]) -> str:
        elapsed = time.monotonic() - self._started
        per_iteration = elapsed / max(1, trainer.iteration - self._first_iteration)
        left = duration(per_iteration * (self._total - trainer.iteration))
        speed = f"{self._fps:,.0f} {self._unit_rate}  {left} left"
        if self._score_tag is not None:
            return f"{speed}  {self._score_name} {metrics[self._score_tag]:.4g}"
        return f"{speed}  {returns_text(metrics, trainer.source.measure)}"


def heading(trainer: Trainer, run: Run) -> str:
    """Where a run is, what it runs on and the commit of its code, in a line."""
    git = run.meta().get("git")
    commit = "no commit (not a git clone)"
    if isinstance(git, dict):
        commit = f"commit {str(git.get('commit'))[:9]}{' with changes' if git.get('changed') else ''}"
    return f"Run: {run.path}  device {trainer.device}  {commit}"


def returns_text(metrics: Mapping[str, float], measure: Measure) -> str:
    """The returns at the first and at the last point of the adaptation curve, on training tasks.

    Where training has no such points, as it collects from the prior and from the posterior, those by their names.
    """
    tag = f"meta_train/{measure.tag}"
    points = sorted(int(name.removeprefix(tag)) for name in metrics if name.startswith(tag))
    if not points:
        parts = {name.removeprefix("meta_train/return/"): value for name, value in metrics.items()}
        return "return " + ", ".join(f"{value:.4g} {name}" for name, value in parts.items() if "/" not in name)
    first, last = points[0], points[-1]
    text = f"return {metrics[f'{tag}{first}']:.4g}"
    if first == last:
        return text
    before = "in" if measure.adds_up else "at"
    return f"{text} {before} {measure.point} {first}, {metrics[f'{tag}{last}']:.4g} {before} {last}"


def duration(seconds: float) -> str:
    """1:02:03, or 2:03 below an hour."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
