"""The numbers of a comparison: interquartile means, profiles and probabilities of improvement, with their intervals.

As Agarwal et al. (2021) and their package rliable have them: the scores of K seeds on N tasks, resampled within tasks.
That takes the scores of one seed on several tasks to be independent, and those of one meta-learner are not: a second
interval, of whole seeds, says what another set of seeds might give. With a single seed, tasks are resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from experiments.workbench.comparing.runs import EvaluatedRun, Group, Runs
from metarl.run.directory import STEP_TAG
from metarl.statistics import (
    Scores,
    bootstrap_interval,
    improvement_interval,
    interquartile_mean,
    interval_over_rows,
    performance_profile,
    probability_of_improvement,
    profile_interval,
)

LEARNING_TAGS = ("meta_val/iqm", "meta_test/iqm")  # of learning curves: on validation tasks, where a family has them
SECONDS_TAG = "time/time_elapsed"
_PLACES = 60  # along a profile or a learning curve


class Estimate(NamedTuple):
    """An interquartile mean or a probability, and its 95 % interval; None where one seed gives none."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Curve:
    """An estimate at each place along an axis."""

    places: list[float]
    estimates: list[Estimate]


@dataclass(frozen=True)
class Row:
    """The numbers of one group."""

    label: str
    seeds: list[int]
    missing: list[int]  # seeds that other groups have
    first: Estimate  # the first point of the adaptation curve
    last: Estimate  # the last one
    gain: Estimate | None  # the last point minus the first, paired by task and seed; None: one point
    over_seeds: Estimate  # the last point, with the interval of whole seeds
    adaptation: Curve
    profile: Curve  # the fraction of scores above a threshold, at the last point
    learning: dict[str, Curve]  # against "samples" and "seconds"; without those that were not logged


@dataclass(frozen=True)
class Improvement:
    """How likely a run of one group is to be better than one of another on the same task, and by how much."""

    group: str
    over: str
    probability: Estimate
    difference: Estimate  # mean over tasks of the first group's mean score minus the other's; positive is better


@dataclass(frozen=True)
class Comparison:
    """All numbers of a comparison."""

    family: str
    split: str
    num_tasks: int
    measure: dict[str, Any]
    rows: list[Row]
    improvements: list[Improvement]
    notes: list[str]
    by_experience: bool = False  # whether adaptation curves are drawn by episodes of experience in the task

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(runs: Runs) -> Comparison:
    """The numbers of runs that can be compared."""
    measure, groups = runs.measure, runs.groups
    sign = 1 if measure["higher_is_better"] else -1
    last = [group.scores[..., -1] for group in groups]  # [K, N] each
    thresholds = np.linspace(min(s.min() for s in last), max(s.max() for s in last), _PLACES)
    notes = list(runs.notes)
    if any(len(group.runs) == 1 for group in groups):
        notes.append("intervals of a group with one seed are over tasks only, and say nothing of other seeds")
    if runs.unfinished:
        notes.append(f"not evaluated on {runs.split}: {', '.join(map(str, runs.unfinished))}")
    return Comparison(
        family=runs.family,
        split=runs.split,
        num_tasks=last[0].shape[1],
        measure=measure,
        rows=[_row(group, thresholds, sign, runs.by_experience) for group in groups],
        improvements=[_improvement(one, other, sign) for one, other in combinations(groups, 2)]
        if runs.same_tasks
        else [],
        notes=notes,
        by_experience=runs.by_experience,
    )


def _row(group: Group, thresholds: Scores, sign: int, by_experience: bool) -> Row:
    scores = group.scores  # [K, N, points]
    first = group.runs[0].evaluation["measure"]["first"]
    numbers = [float(first + index) for index in range(scores.shape[-1])]
    if by_experience:
        numbers = [float(episodes) for episodes in group.runs[0].experience or ()]
    adaptation = [_iqm(scores[..., index]) for index in range(scores.shape[-1])]
    over_seeds = interval_over_rows(scores[..., -1], interquartile_mean) if len(scores) > 1 else (None, None)
    learning = {"samples": _learning(group.runs, STEP_TAG), "seconds": _learning(group.runs, SECONDS_TAG)}
    return Row(
        label=group.label,
        seeds=[run.seed for run in group.runs],
        missing=group.missing,
        first=adaptation[0],
        last=adaptation[-1],
        gain=_iqm(sign * (scores[..., -1] - scores[..., 0])) if len(numbers) > 1 else None,
        over_seeds=Estimate(adaptation[-1].value, *over_seeds),
        adaptation=Curve(numbers, adaptation),
        profile=_profile(scores[..., -1], thresholds),
        learning={name: curve for name, curve in learning.items() if curve is not None},
    )


def _iqm(scores: Scores) -> Estimate:
    """Of K seeds on N tasks [K, N]."""
    strata = scores if len(scores) > 1 else scores.T
    return Estimate(float(interquartile_mean(scores.ravel())), *bootstrap_interval(strata, interquartile_mean))


def _profile(scores: Scores, thresholds: Scores) -> Curve:
    strata = scores if len(scores) > 1 else scores.T
    low, high = profile_interval(strata, thresholds)
    values = performance_profile(scores, thresholds)
    estimates = [Estimate(*map(float, at)) for at in zip(values, low, high, strict=True)]
    return Curve(thresholds.tolist(), estimates)


def _improvement(one: Group, other: Group, sign: int) -> Improvement:
    left, right = sign * one.scores[..., -1], sign * other.scores[..., -1]
    value = probability_of_improvement(left, right)
    interval = improvement_interval(left, right) if min(len(left), len(right)) > 1 else (None, None)
    rise = left.mean(0) - right.mean(0)  # [N], paired by task
    difference = Estimate(float(rise.mean()), *bootstrap_interval(rise))
    return Improvement(one.label, other.label, Estimate(value, *interval), difference)


def _learning(runs: Sequence[EvaluatedRun], axis: str) -> Curve | None:
    """The score on held-out tasks during training, over seeds, where all of them have it; None where one has not."""
    curves = []
    tag = next((tag for tag in LEARNING_TAGS if any(tag in row for run in runs for row in run.rows)), LEARNING_TAGS[-1])
    for run in runs:
        logged = [(row[axis], row[tag]) for row in run.rows if axis in row and tag in row]
        if not logged:
            return None
        curves.append(np.array(logged, dtype=float).T)
    start, end = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    if end < start:
        return None
    places = np.linspace(start, end, _PLACES) if end > start else np.array([start])
    scores = np.stack([np.interp(places, x, y) for x, y in curves])  # [K, places]
    estimates = []
    for values in scores.T:
        interval = bootstrap_interval(values, interquartile_mean) if len(values) > 1 else (None, None)
        estimates.append(Estimate(float(interquartile_mean(values)), *interval))
    return Curve(places.tolist(), estimates)
