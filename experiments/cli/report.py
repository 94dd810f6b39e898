"""The adaptation curve as a table, with known bounds on its tasks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from statistics import fmean
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.experiment.definition import Expected
from metarl.evaluation import Evaluation, Score, logged_points
from metarl.trainer import Trainer

MEASURES = {  # in words, where the name alone would not do
    "mse": "mean squared error (lower is better)",
    "accuracy": "accuracy on the queries",
}
DIGITS = {"accuracy": 4}  # after the point; two elsewhere
_FILE_WIDTH = 140  # characters, where no terminal sets a limit
_TEXT_WIDTH = 20  # characters that a column of words has at least
_FRAME = 3  # characters around a cell


def print_evaluation(evaluation: Evaluation, expected: Expected | None = None, console: Console | None = None) -> None:
    """Print the curve by point and over the trial, with bounds and the family's mean metrics."""
    measure, points = evaluation.measure, evaluation.points
    name = MEASURES.get(measure.name, measure.name)
    title = f"{evaluation.family}, {evaluation.agent}: {name} on {evaluation.num_tasks} {evaluation.split} tasks"
    columns = (measure.point, "mean", "IQM", "95 % interval", *map(_words, (*evaluation.bounds, *evaluation.metrics)))
    rows, digits = [], DIGITS.get(measure.name, 2)
    for number in logged_points(measure, len(points)):
        at = number - measure.first
        known = [values[at] for values in (*evaluation.bounds.values(), *evaluation.metrics.values())]
        rows.append((str(number), *_cells(points[at], known, digits)))
    has_total = len(points) > 1 and measure.adds_up
    if has_total:
        known = [sum(values) for values in evaluation.bounds.values()]
        known += [fmean(values) for values in evaluation.metrics.values()]
        rows.append(("all", *_cells(evaluation.total, known, digits)))
    console = Console() if console is None else console
    print_table(title, columns, rows, console, last_apart=has_total)
    if evaluation.facts:
        console.print(_stated(evaluation.facts), markup=False, highlight=False, soft_wrap=not console.is_terminal)
    if expected is not None:
        console.print(_verdict(evaluation, expected), markup=False, highlight=False, soft_wrap=not console.is_terminal)


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    console: Console,
    *,
    text: Collection[str] = (),
    last_apart: bool = False,
) -> None:
    """Print a table; where the terminal is too narrow for it, several below one another that share the first column.

    text: columns of words, which may be wrapped; the others are numbers. last_apart: a line before the last row.
    """
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    widths = [max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True)]
    needed = [min(width, _TEXT_WIDTH) if name in text else width for name, width in zip(columns, widths, strict=True)]
    for part in _parts([width + _FRAME for width in needed], console.width - 1):
        table = Table(title=escape(title), title_justify="left")
        title = ""  # of the first one only
        for index in part:
            is_text = columns[index] in text
            table.add_column(escape(columns[index]), justify="left" if is_text else "right", no_wrap=not is_text)
        for number, row in enumerate(rows, start=1):
            table.add_row(*(escape(row[index]) for index in part), end_section=last_apart and number == len(rows) - 1)
        console.print(table)


def _parts(widths: Sequence[int], available: int) -> list[list[int]]:
    """Columns by table: the first one in each, with as many of the others as there is room for, and at least one."""
    parts = [[0]]
    for index in range(1, len(widths)):
        if len(parts[-1]) > 1 and sum(widths[other] for other in parts[-1]) + widths[index] > available:
            parts.append([0])
        parts[-1].append(index)
    return parts


def identity(trainer: Trainer, checkpoint: str, seed: int = 0, code: str = "as trained") -> dict[str, Any]:
    """What tells an evaluation from others: the seeds, the checkpoint, how far that had been trained, and the code.

    seed: of the evaluation. code: whether it is that of the training; see `experiments.experiment.reading.ReadRun`.
    """
    return {
        "training_seed": trainer.seed,
        "evaluation_seed": seed,
        "checkpoint": checkpoint,
        "iteration": trainer.iteration,
        "num_samples": trainer.num_samples,
        "code": code,
    }


def _cells(score: Score, known: list[float], digits: int) -> list[str]:
    mean, iqm, low, high, *others = (_number(value, digits) for value in (score.mean, score.iqm, *score.ci95, *known))
    return [mean, iqm, f"{low} to {high}", *others]


def _number(value: float, digits: int) -> str:
    """With so many digits after the point, where there are less than three before it."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}"
    return f"{value:.{digits}f}"


def _stated(facts: Mapping[str, Any]) -> str:
    """The facts behind the scores, in one line."""
    values = {name: f"{value:,.3g}" if isinstance(value, float) else str(value) for name, value in facts.items()}
    return "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in values.items())


def _words(name: str) -> str:
    return name.replace("_", "-")


def _verdict(evaluation: Evaluation, expected: Expected) -> str:
    measure = evaluation.measure
    number = expected.point
    limit = f"{'at least' if expected.at_most is None else 'at most'} {expected.limit:g}"
    if number is None:
        what, reached = "over the trial" if measure.adds_up else "at the end", evaluation.total.mean
    elif 0 <= number - measure.first < len(evaluation.points):
        what = f"in episode {number}" if measure.adds_up else f"after {number} {measure.point}s"
        reached = evaluation.points[number - measure.first].mean
    else:
        return f"Expected {limit} in {measure.point} {number}, which this curve does not have."
    met = "reached" if expected.is_met(reached) else "NOT reached"
    return f"Expected {what}: {limit} ({expected.source}); {met}: {_number(reached, DIGITS.get(measure.name, 2))}."
