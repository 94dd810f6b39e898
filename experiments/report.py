"""The adaptation curve as a table, beside what is known about its tasks."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.experiment import Expected
from metarl.evaluation import Evaluation, Score, logged_points
from metarl.trainer import Trainer

MEASURES = {"mse": "mean squared error (lower is better)"}  # in words, where the name alone would not do
_FILE_WIDTH = 140  # columns, where no terminal sets a limit


def print_evaluation(evaluation: Evaluation, expected: Expected | None = None) -> None:
    """Print the curve point by point and over the trial; bounds and the family's metrics (means) beside them."""
    measure, points = evaluation.measure, evaluation.episodes
    name = MEASURES.get(measure.name, measure.name)
    title = f"{evaluation.family}, {evaluation.agent}: {name} on {evaluation.num_tasks} {evaluation.split} tasks"
    table = Table(title=title, title_justify="left")
    for column in (
        measure.point,
        "mean",
        "IQM",
        "95 % interval",
        *map(_words, (*evaluation.bounds, *evaluation.metrics)),
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for number in logged_points(measure, len(points)):
        at = number - measure.first
        known = [values[at] for values in (*evaluation.bounds.values(), *evaluation.metrics.values())]
        table.add_row(str(number), *_cells(points[at], known))
    if len(points) > 1 and measure.adds_up:
        table.add_section()
        known = [sum(values) for values in evaluation.bounds.values()]
        known += [fmean(values) for values in evaluation.metrics.values()]
        table.add_row("all", *_cells(evaluation.total, known))
    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(table)
    if expected is not None:
        console.print(_verdict(evaluation, expected), highlight=False, soft_wrap=True)


def identity(trainer: Trainer, checkpoint: str, seed: int = 0) -> dict[str, Any]:
    """What tells an evaluation from others of its run: its seed, the checkpoint, and how far that had been trained."""
    return {"seed": seed, "checkpoint": checkpoint, "iteration": trainer.iteration, "env_steps": trainer.env_steps}


def _cells(score: Score, known: list[float]) -> list[str]:
    low, high = score.ci95
    return [_number(score.mean), _number(score.iqm), f"{_number(low)} to {_number(high)}", *map(_number, known)]


def _number(value: float) -> str:
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}"
    return f"{value:.2f}"


def _words(name: str) -> str:
    return name.replace("_", "-")


def _verdict(evaluation: Evaluation, expected: Expected) -> str:
    measure = evaluation.measure
    number = expected.episode
    limit = f"{'at least' if expected.at_most is None else 'at most'} {expected.limit:g}"
    if number is None:
        what, reached = "over the trial" if measure.adds_up else "at the end", evaluation.total.mean
    elif 0 <= number - measure.first < len(evaluation.episodes):
        what = f"in episode {number}" if measure.adds_up else f"after {number} {measure.point}s"
        reached = evaluation.episodes[number - measure.first].mean
    else:
        return f"Expected {limit} in {measure.point} {number}, which this curve does not have."
    met = "reached" if expected.is_met(reached) else "NOT reached"
    return f"Expected {what}: {limit} ({expected.source}); {met}: {_number(reached)}."
