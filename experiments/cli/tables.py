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
UNTRAINED = "*"  # the mark of points that training did not have
DIGITS = {"accuracy": 4}  # after the point; two elsewhere
_FILE_WIDTH = 140  # characters, where no terminal sets a limit
_TEXT_WIDTH = 20  # characters that a column of words has at least
_FRAME = 3  # characters around a cell


def print_evaluation(evaluation: Evaluation, expected: Expected | None = None, console: Console | None = None) -> None:
    """Print the curve by point, over the trial, and its gain, with bounds and the family's mean metrics.

    Points that training did not have are marked. The gain is that of the last point over the first; its interval is
    that of the differences in each task, which is narrower than the intervals of the two points suggest. The means of
    the worst tasks (CVaR) are those at the last point.
    """
    measure, points = evaluation.measure, evaluation.points
    name = MEASURES.get(measure.name, measure.name)
    title = f"{evaluation.family}, {evaluation.agent}: {name} on {evaluation.num_tasks} {evaluation.split} tasks"
    columns = (measure.point, "mean", "IQM", "95 % interval", *map(_words, (*evaluation.bounds, *evaluation.metrics)))
    rows, digits = [], DIGITS.get(measure.name, 2)
    for number in logged_points(measure, len(points)):
        at = number - measure.first
        is_trained = evaluation.trained_points is None or at < evaluation.trained_points
        known = [values[at] for values in (*evaluation.bounds.values(), *evaluation.metrics.values())]
        rows.append((f"{number}{'' if is_trained else UNTRAINED}", *_cells(points[at], known, digits)))
    num_points_rows = len(rows)
    if len(points) > 1 and measure.adds_up:
        known = [sum(values) for values in evaluation.bounds.values()]
        known += [fmean(values) for values in evaluation.metrics.values()]
        rows.append(("all", *_cells(evaluation.total, known, digits)))
    if evaluation.gain is not None:
        sign = 1 if measure.higher_is_better else -1
        known = [sign * (values[-1] - values[0]) for values in evaluation.bounds.values()]
        rows.append(("gain", *_cells(evaluation.gain, known, digits), *[""] * len(evaluation.metrics)))
    if evaluation.tails:
        tail, blank = evaluation.tails[-1], [""] * (len(columns) - 2)
        worst = {"worst 20 %": tail.cvar20, "worst 5 %": tail.cvar5, "worst task": tail.worst}
        rows += [(name, number_text(value, digits), *blank) for name, value in worst.items()]
    console = Console() if console is None else console
    print_table(title, columns, rows, console, num_apart=len(rows) - num_points_rows)
    _print_groups(evaluation, digits, console)
    lines = [_beyond_training(evaluation), _worst(evaluation), speed_text(evaluation), _gaps(evaluation, digits)]
    lines.append(stated(evaluation.facts))
    for line in filter(None, [*lines, "" if expected is None else verdict(evaluation, expected)]):
        console.print(line, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _print_groups(evaluation: Evaluation, digits: int, console: Console) -> None:
    """Print the first and the last point for each kind of task, where there are several."""
    groups = {} if evaluation.per_task is None else evaluation.per_task.by_group()
    if len(groups) < 2:
        return
    measure, last = evaluation.measure, len(evaluation.points) - 1
    places = {0: f"{measure.point} {measure.first}", last: f"{measure.point} {measure.first + last}"}
    names = {"score": MEASURES.get(measure.name, measure.name), **{name: _words(name) for name in evaluation.metrics}}
    columns = ("kind", *(f"{words}, {place}" for words in names.values() for place in places.values()))
    rows = [
        (group, *(number_text(values[name][at], digits) for name in names for at in places))
        for group, values in groups.items()
    ]
    print_table("by kind of task", columns, rows, console, text=("kind",))


def print_evaluations(evaluations: Mapping[str, Evaluation], console: Console | None = None) -> None:
    """Print one table with a row for each of several evaluations, by the names of their runs."""
    first = next(iter(evaluations.values()))
    names = {evaluation.measure.name for evaluation in evaluations.values()}
    what = MEASURES.get(first.measure.name, first.measure.name) if len(names) == 1 else "score"
    columns = ("run", "agent", "first", "last", "95 % interval", "gain", "worst 20 %", "worst 5 %", "worst task")
    rows = []
    for name, one in evaluations.items():
        digits = DIGITS.get(one.measure.name, 2)
        mean, _, interval = _cells(one.points[-1], [], digits)
        gain = "" if one.gain is None else number_text(one.gain.mean, digits)
        tail = one.tails[-1]
        worst = (number_text(value, digits) for value in (tail.cvar20, tail.cvar5, tail.worst))
        start = number_text(one.points[0].mean, digits)
        rows.append((name, f"{one.agent} on {one.family}", start, mean, interval, gain, *worst))
    console = Console() if console is None else console
    title = f"{what} at the first and last point, {first.num_tasks} {first.split} tasks"
    print_table(title, columns, rows, console, text=("run", "agent"))
    if len({one.tasks_hash for one in evaluations.values()}) > 1:
        note = "Not on the same tasks: families, or settings that tasks depend on, differ."
        console.print(note, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    console: Console,
    *,
    text: Collection[str] = (),
    num_apart: int = 0,
) -> None:
    """Print a table; where the terminal is too narrow for it, several below one another that share the first column.

    text: columns of words, which may be wrapped; the others are numbers. num_apart: how many of the last rows stand
    apart, under a line.
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
            table.add_row(*(escape(row[index]) for index in part), end_section=number == len(rows) - num_apart)
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
    mean, iqm, low, high, *others = (
        number_text(value, digits) for value in (score.mean, score.iqm, *score.ci95, *known)
    )
    return [mean, iqm, f"{low} to {high}", *others]


def number_text(value: float, digits: int) -> str:
    """With so many digits after the point, where there are less than three before it."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}"
    return f"{value:.{digits}f}"


def _beyond_training(evaluation: Evaluation) -> str:
    """What the mark means, where a point has it."""
    trained, measure = evaluation.trained_points, evaluation.measure
    if trained is None or trained >= len(evaluation.points):
        return ""
    return f"{UNTRAINED} beyond training, whose trials ended at {measure.point} {measure.first + trained - 1}"


def _worst(evaluation: Evaluation) -> str:
    """What the rows of the worst tasks are, in a line."""
    if not evaluation.tails:
        return ""
    measure, last = evaluation.measure, evaluation.measure.first + len(evaluation.points) - 1
    return f"worst 20 %, worst 5 %: mean over the worst tasks (CVaR) at {measure.point} {last}"


def speed_text(evaluation: Evaluation) -> str:
    """When the agent has come close to the oracle, in a line."""
    speed, point = evaluation.speed, evaluation.measure.point
    if speed is None:
        return ""
    what = f"{100 * speed.share:.0f} % of the way from random to oracle"
    last = f"{100 * speed.shares[-1]:.0f} % at the last"
    if speed.reached is None:
        return f"{what}: not reached; {last}"
    before = (
        ""
        if speed.experience is None
        else f", after {speed.experience} episode{'' if speed.experience == 1 else 's'} of experience"
    )
    return f"{what}: reached in {point} {speed.reached}{before}; {last}"


def _gaps(evaluation: Evaluation, digits: int) -> str:
    """How far the agent is from each bound in the same tasks, in a line."""
    gaps = {
        _words(name): f"{number_text(gap.mean, digits)} ({' to '.join(number_text(end, digits) for end in gap.ci95)})"
        for name, gap in evaluation.bound_gaps.items()
    }
    what = "over the trial" if evaluation.measure.adds_up else f"at the last {evaluation.measure.point}"
    differences = ", ".join(f"{name} {value}" for name, value in gaps.items())
    return f"Agent minus bound in the same tasks, {what} (95 % interval): {differences}" if gaps else ""


def stated(facts: Mapping[str, Any]) -> str:
    """The facts behind the scores, in one line."""
    values = {name: f"{value:,.3g}" if isinstance(value, float) else str(value) for name, value in facts.items()}
    return "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in values.items())


def _words(name: str) -> str:
    return name.replace("_", "-")


def verdict(evaluation: Evaluation, expected: Expected) -> str:
    measure = evaluation.measure
    number = expected.point
    limit = f"{'at least' if expected.at_most is None else 'at most'} {expected.limit:g}"
    if number is None:
        what, reached = "over the trial" if measure.adds_up else "at the end", evaluation.total.mean
    elif 0 <= number - measure.first < len(evaluation.points):
        what = (
            f"in episode {number}" if measure.adds_up else f"after {number} {measure.point}{'' if number == 1 else 's'}"
        )
        reached = evaluation.points[number - measure.first].mean
    else:
        return f"Expected {limit} in {measure.point} {number}, which this curve does not have."
    met = "reached" if expected.is_met(reached) else "NOT reached"
    return f"Expected {what}: {limit} ({expected.source}); {met}: {number_text(reached, DIGITS.get(measure.name, 2))}."
