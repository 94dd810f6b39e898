"""The numbers of a report that an evaluation and a log do not hold as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from experiments.workbench.reporting.runs import ReportedRun
from metarl.evaluation import Evaluation, PerTask
from metarl.run.directory import STEP_TAG
from metarl.statistics import Scores, bootstrap_interval, difference_interval, tail_mean

SECONDS_TAG = "time/time_elapsed"
TAILS = (0.05, 0.2)  # the fractions of worst tasks whose mean is reported
PARAMETER = "task."  # what the names of the tasks' parameters begin with in a table, as in an evaluation's CSV
_WORST = 10  # tasks of the table
_MOST_VALUES = 30  # of a parameter, each with a column of its own
_BINS = 12  # of a parameter with more values, with as many tasks in each
_PLANE_BINS = 10  # of each of two parameters, of equal width
MOST_MAPS = 8
_BLOCKS = 60  # of a training, in the picture of its time
_CURVE_POINTS = 200  # of a line of training, at most


class Estimate(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Tail:
    """The mean over the worst tasks."""

    fraction: float
    num_tasks: int
    estimate: Estimate


@dataclass(frozen=True)
class Gap:
    """How much better a run does on the tasks of one split than on those of another."""

    better: str
    worse: str
    quantity: str
    estimate: Estimate
    same_tasks: bool  # whether both splits are the same tasks, so that the gap is zero and says nothing


@dataclass(frozen=True)
class TaskMap:
    """Mean scores in bins of tasks. Along one parameter by point of the curve, or at the last point over two."""

    name: str
    columns: list[str]
    rows: list[str]
    values: list[list[float | None]]  # [rows][columns]; None without a task
    counts: list[list[int]]
    row_name: str
    explained: float | None  # the fraction of the variance between tasks that the columns explain, at the last point


@dataclass(frozen=True)
class TimeSplit:
    """Where the time of a training went, block by block."""

    samples: list[float]  # at the end of each block
    collecting: list[float]  # seconds per iteration
    updating: list[float]
    total_collecting: float  # seconds
    total_updating: float
    rate: float  # samples per second over all


def final_scores(evaluation: Evaluation) -> Scores:
    """The score of each task at the last point, without those that are not finite; empty where none are kept."""
    if evaluation.per_task is None:
        return np.zeros(0)
    scores = np.array(evaluation.per_task.scores[-1], dtype=float)
    return scores[np.isfinite(scores)]


def tails(evaluation: Evaluation) -> list[Tail]:
    """The conditional value at risk of the score at the last point, with bootstrap intervals over tasks."""
    scores = final_scores(evaluation)
    if len(scores) == 0:
        return []
    found = []
    sign = 1 if evaluation.measure.higher_is_better else -1
    for fraction in TAILS:
        statistic = partial(tail_mean, fraction=fraction)
        ends = bootstrap_interval(sign * scores, statistic)
        low, high = sorted(sign * end for end in ends)
        number = max(1, math.ceil(round(fraction * len(scores), 9)))
        found.append(Tail(fraction, number, Estimate(sign * float(statistic(sign * scores)), low, high)))
    return found


def parameters(per_task: PerTask | None) -> dict[str, Scores]:
    """The numbers that make a task, [N] each, by name; a vector's under "goal.0" and "goal.1"."""
    if per_task is None:
        return {}
    found: dict[str, Scores] = {}
    for name, values in per_task.parameters.items():
        try:
            numbers = np.array(values, dtype=float)
        except (ValueError, TypeError, OverflowError):  # no numbers, or vectors of several lengths
            continue
        if not np.isfinite(numbers).all():
            continue
        columns = numbers.reshape(len(numbers), -1)
        places = [""] if numbers.ndim == 1 else ["." + ".".join(map(str, at)) for at in np.ndindex(numbers.shape[1:])]
        found |= {f"{name}{place}": columns[:, index] for index, place in enumerate(places)}
    return found


def worst_tasks(evaluation: Evaluation) -> list[dict[str, float]]:
    """The tasks with the worst scores at the last point, the worst first: scores, bounds and parameters."""
    per_task, measure = evaluation.per_task, evaluation.measure
    if per_task is None:
        return []
    last = np.array(per_task.scores[-1], dtype=float)
    sign = 1 if measure.higher_is_better else -1
    order = np.argsort(np.where(np.isfinite(last), sign * last, -np.inf), kind="stable")[:_WORST]
    first_name, last_name = (f"{measure.point} {measure.first + at}" for at in (0, len(per_task.scores) - 1))
    columns = {first_name: per_task.scores[0], last_name: per_task.scores[-1]}
    columns |= {name.replace("_", "-"): values[-1] for name, values in per_task.bounds.items()}
    varied = {name: values for name, values in parameters(per_task).items() if len(np.unique(values)) > 1}
    columns |= {f"{PARAMETER}{name}": values for name, values in list(varied.items())[:MOST_MAPS]}
    return [{"task": int(task), **{name: float(values[task]) for name, values in columns.items()}} for task in order]


def gaps(run: ReportedRun) -> list[Gap]:
    """The meta-overfitting gap, train against test, and that to ood tasks: positive where the first is better.

    At the last point of the curve; also of what each task's score lacks to its bounds, where these are known, as tasks
    of another split can be harder.
    """
    found = []
    for one, other in (("train", "test"), ("train", "val"), ("test", "ood")):
        if one in run.evaluations and other in run.evaluations:
            found += _gaps(run.evaluations[one].evaluation, run.evaluations[other].evaluation)
    return found


def _gaps(one: Evaluation, other: Evaluation) -> list[Gap]:
    left, right = one.per_task, other.per_task
    if left is None or right is None or len(left.scores) != len(right.scores):
        return []
    sign = 1 if one.measure.higher_is_better else -1
    same = one.tasks_hash == other.tasks_hash != ""
    sides = {one.measure.name: (np.array(left.scores[-1]), np.array(right.scores[-1]))}
    for name in left.bounds:
        if name in right.bounds and name != "random":
            pair = ((left, left.bounds[name]), (right, right.bounds[name]))
            first, second = (np.array(side.scores[-1]) - np.array(bound[-1]) for side, bound in pair)
            sides[f"{one.measure.name} minus {name.replace('_', '-')}"] = (first, second)
    found = []
    for quantity, pair in sides.items():
        first, second = (sign * values[np.isfinite(values)] for values in pair)
        if len(first) and len(second):
            interval = (0.0, 0.0) if same else difference_interval(first, second)
            estimate = Estimate(float(first.mean() - second.mean()), *interval)
            found.append(Gap(one.split, other.split, quantity, estimate, same))
    return found


def task_maps(evaluation: Evaluation, points: Sequence[int]) -> list[TaskMap]:
    """The score over each parameter that differs between tasks, by point of the curve; what explains most comes first.

    points: the points of the curve that become rows.
    """
    per_task, measure = evaluation.per_task, evaluation.measure
    if per_task is None:
        return []
    scores = np.array(per_task.scores, dtype=float)
    scores = scores[[number - measure.first for number in points]]
    rows = [f"{measure.point} {number}" for number in points]
    maps = []
    for name, values in parameters(per_task).items():
        of_bin, labels = _bins(values)
        if len(labels) > 1:
            means, counts = _means(scores, of_bin, len(labels))
            explained = _explained(scores[-1], of_bin, len(labels))
            maps.append(TaskMap(name, labels, rows, means, counts, measure.point, explained))
    return sorted(maps, key=lambda one: -(one.explained or 0.0))


def plane_maps(evaluation: Evaluation) -> list[TaskMap]:
    """The score at the last point over each parameter of two numbers, such as a goal in the plane."""
    per_task = evaluation.per_task
    if per_task is None:
        return []
    found = []
    last, known = np.array(per_task.scores[-1], dtype=float), parameters(per_task)
    for name, values in per_task.parameters.items():
        pair = [known.get(f"{name}.{index}") for index in range(2)]
        if not values or not isinstance(values[0], list) or len(values[0]) != 2 or pair[0] is None or pair[1] is None:
            continue
        (x_bin, x_labels), (y_bin, y_labels) = (_even_bins(axis) for axis in pair if axis is not None)
        if len(x_labels) > 1 and len(y_labels) > 1:
            size = len(x_labels) * len(y_labels)
            means, counts = _means(last[None], y_bin * len(x_labels) + x_bin, size)
            shape = (len(y_labels), len(x_labels))
            grid = np.array(means[0], dtype=object).reshape(shape).tolist()
            found.append(
                TaskMap(name, x_labels, y_labels, grid, np.array(counts[0]).reshape(shape).tolist(), f"{name}.1", None)
            )
    return found[:MOST_MAPS]


def _bins(values: Scores) -> tuple[np.ndarray[Any, Any], list[str]]:
    """The bin of each task, and the bins' labels: one for each value, or ranges with as many tasks in each."""
    distinct = np.unique(values)
    if len(distinct) <= _MOST_VALUES:
        return np.searchsorted(distinct, values), [f"{value:g}" for value in distinct]
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)))
    return _in_bins(values, edges)


def _even_bins(values: Scores) -> tuple[np.ndarray[Any, Any], list[str]]:
    distinct = np.unique(values)
    if len(distinct) <= _PLANE_BINS:
        return np.searchsorted(distinct, values), [f"{value:g}" for value in distinct]
    return _in_bins(values, np.linspace(values.min(), values.max(), _PLANE_BINS + 1))


def _in_bins(values: Scores, edges: Scores) -> tuple[np.ndarray[Any, Any], list[str]]:
    of_bin = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    places = 2 - math.floor(math.log10(edges[-1] - edges[0]))  # three digits of the whole range
    return of_bin, [f"{low:g} to {high:g}" for low, high in pairwise(round(float(edge), places) for edge in edges)]


def _means(
    scores: Scores, of_bin: np.ndarray[Any, Any], num_bins: int
) -> tuple[list[list[float | None]], list[list[int]]]:
    """Means and numbers of the finite scores [rows, N] in each bin."""
    means: list[list[float | None]] = []
    counts: list[list[int]] = []
    for row in scores:
        finite = np.isfinite(row)
        number = np.bincount(of_bin[finite], minlength=num_bins)
        total = np.bincount(of_bin[finite], weights=row[finite], minlength=num_bins)
        means.append([float(t / n) if n else None for t, n in zip(total, number, strict=True)])
        counts.append(number.tolist())
    return means, counts


def _explained(scores: Scores, of_bin: np.ndarray[Any, Any], num_bins: int) -> float | None:
    """The fraction of the variance between tasks that is between bins, corrected for their number (omega squared)."""
    finite = np.isfinite(scores)
    scores, of_bin = scores[finite], of_bin[finite]
    number = np.bincount(of_bin, minlength=num_bins)
    used = int((number > 0).sum())
    total = float(((scores - scores.mean()) ** 2).sum()) if len(scores) else 0.0
    if total == 0 or len(scores) <= used:
        return None
    means = np.bincount(of_bin, weights=scores, minlength=num_bins) / np.maximum(number, 1)
    between = float((number * (means - scores.mean()) ** 2).sum())
    within = (total - between) / (len(scores) - used)
    return max(0.0, (between - (used - 1) * within) / (total + within))


def time_split(rows: Sequence[Mapping[str, float]]) -> TimeSplit | None:
    """Where the time of a training went; None where the log does not say."""
    tags = (SECONDS_TAG, STEP_TAG, "time/collect_share")
    logged = np.array([[row[tag] for tag in tags] for row in rows if all(tag in row for tag in tags)], dtype=float)
    if len(logged) == 0:
        return None
    seconds = np.diff(logged[:, 0], prepend=0.0)
    collecting = seconds * logged[:, 2]
    blocks = np.array_split(np.arange(len(logged)), min(_BLOCKS, len(logged)))
    return TimeSplit(
        samples=[float(logged[block[-1], 1]) for block in blocks],
        collecting=[float(collecting[block].mean()) for block in blocks],
        updating=[float((seconds - collecting)[block].mean()) for block in blocks],
        total_collecting=float(collecting.sum()),
        total_updating=float((seconds - collecting).sum()),
        rate=float(logged[-1, 1] / logged[-1, 0]) if logged[-1, 0] > 0 else float("nan"),
    )


def learning_curve(rows: Sequence[Mapping[str, float]], tag: str) -> tuple[list[float], list[float]]:
    """A logged number against samples, in means over blocks where there are many rows."""
    logged = np.array([[row[STEP_TAG], row[tag]] for row in rows if tag in row], dtype=float)
    if len(logged) == 0:
        return [], []
    blocks = np.array_split(logged, min(_CURVE_POINTS, len(logged)))
    return [float(block[-1, 0]) for block in blocks], [float(block[:, 1].mean()) for block in blocks]
