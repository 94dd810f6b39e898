"""Memorisation: a learner that does as well with another task's data as with the right ones has adapted to nothing.

Yin et al. Meta-learning without memorization (2020).
"""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.workbench.insight.exchange import Exchange, LearnerExchange
from experiments.workbench.insight.findings import Difference, Evidence, Finding, score_row, shifted, text

_LEAST_SHARE = 0.5  # of the score above knowing nothing, that must be owed to the task's own data


def memorisation(exchange: Exchange, split: str) -> Finding:
    """Scores with the right data, another task's, and none."""
    every = torch.arange(exchange.num_tasks)
    right, other, none = (exchange.scores(given, every) for given in (every, shifted(exchange.num_tasks), None))
    return judged(exchange, right, other, none, split)


def judged(exchange: Exchange, right: Tensor, other: Tensor, none: Tensor, split: str) -> Finding:
    """The verdict on scores [N] with the right data, another task's, and none."""
    measure, floor = exchange.measure, exchange.floor
    floor = none if floor is None else floor
    owed, above = Difference.of(right, other, measure), Difference.of(right, floor, measure)
    share = owed.mean / above.mean if above.mean > 0 else float("nan")
    rows = [score_row(*row) for row in (("its own", right), ("another task's", other), ("none", none))]
    rows.append(score_row("who knows nothing", floor))
    evidence = [Evidence(f"{measure.name} on {split} tasks, by the data adapted to", ["data", "mean", "95 %"], rows)]
    numbers = {"owed": owed.mean, "owed_low": owed.low, "above": above.mean, "share": share}
    if above.low <= 0:
        verdict = f"it has learned nothing to speak of: its score is {above} above who knows nothing"
        return Finding("memorisation", "unknown", verdict, evidence, numbers)
    if owed.low <= 0 or share < _LEAST_SHARE:
        verdict = (
            f"memorised: another task's data do as well, but for {owed} of the {text(above.mean)} that it has learned"
        )
        return Finding("memorisation", "warning", verdict, evidence, numbers)
    verdict = f"not memorised: its own data, rather than another task's, are worth {owed}"
    return Finding("memorisation", "fine", verdict, evidence, numbers)


def labels(exchange: LearnerExchange, generator: torch.Generator) -> Finding:
    """Whether a few-shot learner reads the labels of its support: scores with labels in another order."""
    every, measure = torch.arange(exchange.num_tasks), exchange.measure
    right = exchange.scores(every, every)
    wrong = exchange.scores_of(exchange.mislabelled(generator), -1)
    lost, above = Difference.of(right, wrong, measure), Difference.of(right, exchange.floor, measure)
    rows = [score_row("as they are", right), score_row("in another order", wrong)]
    evidence = [Evidence(f"{measure.name} by the labels of the support", ["labels", "mean", "95 %"], rows)]
    numbers = {"lost": lost.mean, "lost_low": lost.low, "above": above.mean}
    if above.low <= 0:
        verdict = "it has learned nothing to speak of, with labels or without"
        return Finding("shortcuts", "unknown", verdict, evidence, numbers)
    if lost.low <= 0 or lost.mean < _LEAST_SHARE * above.mean:
        verdict = f"it does not read the labels: in another order they cost {lost} of {text(above.mean)}"
        return Finding("shortcuts", "warning", verdict, evidence, numbers)
    return Finding("shortcuts", "fine", f"it reads the labels: in another order they cost {lost}", evidence, numbers)
