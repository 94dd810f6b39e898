"""Reward hacking: a return that rises while the numbers measured besides it get worse.

Skalse et al. Defining and characterizing reward hacking (2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from envs.locomotion.reward_terms import ENDED_BY, REWARD
from experiments.workbench.insight.findings import Evidence, Finding, text
from metarl.evaluation import Evaluation
from metarl.statistics import Scores

_LOWER_IS_BETTER = ("error", "distance", "fall", "cost", "action_rate", "saturation", "power", ENDED_BY)  # in names
_SOME = 0.1  # of a metric's spread, below which it has not got worse


def reward_hacking(evaluation: Evaluation, log: Sequence[Mapping[str, float]]) -> Finding:
    """The return against each metric: across test tasks at the last point, and in the course of the training."""
    per_task, measure = evaluation.per_task, evaluation.measure
    metrics = {} if per_task is None else per_task.metrics
    metrics = {name: values for name, values in metrics.items() if not name.startswith(REWARD)}  # others are its parts
    if per_task is None or not metrics:
        return Finding("reward hacking", "unknown", "the family measures nothing besides the return")
    returns = np.array(per_task.scores[-1], dtype=float)
    last = f"{measure.tag}{measure.first + len(per_task.scores) - 1}"
    rows, numbers, worries = [], {}, []
    for name, values in metrics.items():
        sign = -1 if any(word in name for word in _LOWER_IS_BETTER) else 1
        across = rank_correlation(returns, sign * np.array(values[-1], dtype=float))
        number = measure.first + len(per_task.scores) - 1
        trend = _trend(log, f"meta_test/{last}", f"meta_test/{name}/{measure.point_tag}_{number}", sign)
        numbers |= {f"{name}_across": across, f"{name}_trend": trend}
        rows.append(
            [name, "lower" if sign < 0 else "higher", text(across), "not logged" if np.isnan(trend) else text(trend)]
        )
        if across < -_SOME:
            worries.append(f"tasks with more return are worse in {name}")
        if trend < -_SOME:
            worries.append(f"while the return rose in training, {name} got worse")
    columns = ["metric", "better", "rank correlation with the return", "change in training, of its spread"]
    evidence = [Evidence("metrics besides the return; positive: they agree", columns, rows)]
    if worries:
        return Finding("reward hacking", "warning", "; ".join(worries), evidence, numbers)
    return Finding("reward hacking", "fine", "return and metrics agree", evidence, numbers)


def rank_correlation(one: Scores, other: Scores) -> float:
    """Spearman's correlation of two lists, where both are finite; zero where one does not vary."""
    finite = np.isfinite(one) & np.isfinite(other)
    ranks = [np.unique(values[finite], return_inverse=True)[1].astype(float) for values in (one, other)]
    if min((values.std() for values in ranks), default=0.0) == 0:
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _trend(log: Sequence[Mapping[str, float]], return_tag: str, metric_tag: str, sign: int) -> float:
    """The metric's improvement from the first third of the log to the last, in spreads, where the return rose.

    NaN where they are not logged, or the return did not rise.
    """
    both = np.array([[row[return_tag], row[metric_tag]] for row in log if return_tag in row and metric_tag in row])
    if len(both) < 3:
        return float("nan")
    third = len(both) // 3
    rise, change = both[-third:].mean(0) - both[:third].mean(0)
    spread = float(np.ptp(both[:, 1]))
    return float(sign * change / spread) if rise > 0 and spread > 0 else float("nan")
