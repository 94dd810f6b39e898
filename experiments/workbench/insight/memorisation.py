"""Memorisation: a learner that does as well with another task's data as with the right ones has adapted to nothing.

Yin et al. Meta-learning without memorization (2020).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from experiments.workbench.insight.exchange import Exchange, LearnerExchange
from experiments.workbench.insight.findings import Difference, Evidence, Finding, Level, Share, score_row, shifted, text

_LEAST_SHARE = 0.5  # of the score above who knows nothing, that must be owed to the task's own data


def memorisation(exchange: Exchange, split: str) -> Finding:
    """Scores with the right data, another task's, and none."""
    every = torch.arange(exchange.num_tasks)
    right, other, none = (exchange.scores(given, every) for given in (every, shifted(exchange.num_tasks), None))
    return judged(exchange, right, other, none, split)


def judged(exchange: Exchange, right: Tensor, other: Tensor, none: Tensor, split: str) -> Finding:
    """The verdict on scores [N] with the right data, another task's, and none.

    A learner that does as well with no data has adapted to nothing either, but for one that adapts while it is scored.
    """
    measure, floor = exchange.measure, exchange.floor
    floor = none if floor is None else floor
    rows = [score_row(*row) for row in (("its own", right), ("another task's", other), ("none", none))]
    rows.append(score_row("who knows nothing", floor))
    evidence = [Evidence(f"{measure.name} on {split} tasks, by the data adapted to", ["data", "mean", "95 %"], rows)]
    owed, above = Difference.of(right, other, measure), Difference.of(right, floor, measure)
    numbers = {"owed": owed.mean, "owed_low": owed.low, "above": above.mean}
    if above.low <= 0:
        verdict = f"it has learned nothing to speak of: its score is {above} above who knows nothing"
        return Finding("memorisation", "unknown", verdict, evidence, numbers)
    rivals = (
        {"with another task's data": other}
        if exchange.adapts_while_scored
        else {"with another task's data": other, "without any data": none}
    )
    shares = {name: Share.of(right - scores, right - floor) for name, scores in rivals.items()}
    rival = min(shares, key=lambda name: shares[name].mean)
    share = shares[rival]
    numbers |= {"share": share.mean, "share_low": share.low, "share_high": share.high}
    claims: dict[Level, str] = {
        "warning": "memorised",
        "unknown": f"cannot be told from {len(right)} tasks",
        "fine": "not memorised",
    }
    reason = f"{rival} it loses {share} of what it has learned ({text(above.mean)})"
    return _by_share("memorisation", share, claims, reason, evidence, numbers)


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
    claims: dict[Level, str] = {
        "warning": "it does not read the labels",
        "unknown": f"cannot be told from {len(right)} tasks whether it reads the labels",
        "fine": "it reads the labels",
    }
    share = Share.of(right - wrong, right - exchange.floor)
    reason = f"in another order they cost {lost} of {text(above.mean)}"
    return _by_share("shortcuts", share, claims, reason, evidence, numbers)


def _by_share(
    detector: str,
    share: Share,
    claims: Mapping[Level, str],
    reason: str,
    evidence: list[Evidence],
    numbers: dict[str, float],
) -> Finding:
    """A finding with the claim that fits the share of what was learned that is lost: fine where it is most of it."""
    level = share.level(_LEAST_SHARE)
    return Finding(detector, level, f"{claims[level]}: {reason}", evidence, numbers)
