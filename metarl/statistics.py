"""Means, interquartile means and bootstrap intervals of scores.

Agarwal et al. Deep reinforcement learning at the edge of the statistical precipice (2021). Reimplemented because the
authors' package, rliable, currently fails to import on a fresh install.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]

_RESAMPLED_AT_ONCE = 4_000_000  # scores


def mean(scores: Scores) -> Scores:
    """Mean over the last axis."""
    return scores.mean(-1)


def interquartile_mean(scores: Scores) -> Scores:
    """Mean of the middle half over the last axis of K scores: the lowest and highest floor(K / 4) are dropped."""
    scores = np.sort(scores, axis=-1)
    cut = scores.shape[-1] // 4
    return scores[..., cut : scores.shape[-1] - cut].mean(-1)


def tail_mean(scores: Scores, fraction: float) -> Scores:
    """Mean of the lowest scores over the last axis, a fraction of them and at least one: the conditional value at risk.

    Rockafellar and Uryasev. Optimization of conditional value-at-risk (2000). Of K scores, K fraction rounded up.
    """
    number = max(1, math.ceil(round(fraction * scores.shape[-1], 9)))
    return np.partition(scores, number - 1, axis=-1)[..., :number].mean(-1)


def bootstrap_interval(
    scores: Scores,
    statistic: Callable[[Scores], Scores] = mean,
    *,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic, stratified over columns.

    scores: [K] independent scores, or [K, S] with K of them in each of S strata: a resample draws K scores with
    replacement within every stratum. The statistic is taken over all scores of a resample, along the last axis.

    Raises:
        ValueError: when there are no scores, or the level is outside (0, 1).
    """
    if scores.size == 0:
        raise ValueError("scores is empty; a bootstrap interval needs at least one score")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; must lie between 0 and 1")
    strata = scores.reshape(len(scores), -1)  # [K, S]
    rng = np.random.default_rng(seed)
    size = max(1, _RESAMPLED_AT_ONCE // strata.size)  # bounds the memory
    values = []
    for start in range(0, num_resamples, size):
        picks = rng.integers(len(strata), size=(min(size, num_resamples - start), *strata.shape))
        resamples = np.take_along_axis(strata[None], picks, axis=1)  # [R, K, S]
        values.append(statistic(resamples.reshape(len(resamples), -1)))
    low, high = np.quantile(np.concatenate(values), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interval_over_rows(
    scores: Scores,
    statistic: Callable[[Scores], Scores] = mean,
    *,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of [K, S] scores in which whole rows are drawn with replacement.

    For rows whose scores go together, such as those of one trained agent on several tasks: `bootstrap_interval` would
    take them to be independent, and be too narrow.
    """
    rng = np.random.default_rng(seed)
    size = max(1, _RESAMPLED_AT_ONCE // scores.size)
    values = []
    for start in range(0, num_resamples, size):
        picks = rng.integers(len(scores), size=(min(size, num_resamples - start), len(scores)))
        values.append(statistic(scores[picks].reshape(len(picks), -1)))
    low, high = np.quantile(np.concatenate(values), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def ratio_interval(parts: Scores, wholes: Scores) -> tuple[float, float]:
    """95 % bootstrap interval of the sum of parts [K] over that of their wholes [K]; NaN where these sum to zero."""
    if not wholes.sum():
        return math.nan, math.nan
    pairs = np.stack([parts, wholes], 1)

    def ratio(drawn: Scores) -> Scores:
        sums = drawn.reshape(len(drawn), -1, 2).sum(1)
        return np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] != 0)

    return interval_over_rows(pairs, ratio)


def difference_interval(
    scores: Scores, others: Scores, *, level: float = 0.95, num_resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of scores [K] minus that of independent others [L]."""
    rng = np.random.default_rng(seed)
    means = []
    for values in (scores, others):
        size = max(1, _RESAMPLED_AT_ONCE // len(values))
        starts = range(0, num_resamples, size)
        picks = (rng.integers(len(values), size=(min(size, num_resamples - at), len(values))) for at in starts)
        means.append(np.concatenate([values[of].mean(-1) for of in picks]))
    low, high = np.quantile(means[0] - means[1], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def performance_profile(scores: Scores, thresholds: Scores) -> Scores:
    """The fraction [T] of the scores [K, S] above each of the thresholds [T]: rliable's run-score distribution."""
    return (scores[..., None] > thresholds).mean((0, 1))


def profile_interval(
    scores: Scores, thresholds: Scores, *, level: float = 0.95, num_resamples: int = 2000, seed: int = 0
) -> tuple[Scores, Scores]:
    """Percentile bootstrap interval of the performance profile, at each threshold [T].

    scores: [K, S], K runs in each of S strata, resampled within strata as by `bootstrap_interval`.
    """
    above = (scores[..., None] > thresholds).reshape(scores.size, -1).astype(np.float64)  # [K * S, T]
    shares = [
        counts.transpose(0, 2, 1).reshape(len(counts), -1) @ above / scores.size
        for counts in _resampled_counts(scores.shape, num_resamples, np.random.default_rng(seed))
    ]
    low, high = np.quantile(np.concatenate(shares), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def probability_of_improvement(scores: Scores, others: Scores) -> float:
    """The probability that a run of one agent [K, S] scores higher than one of another [L, S], averaged over S tasks.

    The Mann-Whitney statistic of each task, divided by K L; an equal score counts one half.
    """
    return float(_wins(scores, others).mean())


def improvement_interval(
    scores: Scores, others: Scores, *, level: float = 0.95, num_resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the probability of improvement; the runs of both are resampled within tasks."""
    wins = _wins(scores, others)
    rng = np.random.default_rng(seed)
    both = zip(
        _resampled_counts(scores.shape, num_resamples, rng, width=wins.size),
        _resampled_counts(others.shape, num_resamples, rng, width=wins.size),
        strict=True,
    )
    # With c_i how often run i was drawn for a task, the mean over drawn pairs is the sum of c_i w_ij d_j / (K L).
    values = [np.einsum("rsk,kls,rsl->r", counts, wins, drawn, optimize=True) / wins.size for counts, drawn in both]
    low, high = np.quantile(np.concatenate(values), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _wins(scores: Scores, others: Scores) -> Scores:
    """[K, L, S]: 1 where a score is higher than the other of its task, one half where they are equal."""
    left, right = scores[:, None], others[None]
    return (left > right) + 0.5 * (left == right)


def _resampled_counts(
    shape: tuple[int, ...], num_resamples: int, rng: np.random.Generator, width: int | None = None
) -> Iterator[Scores]:
    """How often each of K scores is drawn in each of S strata, [R, S, K] at a time, over all resamples.

    width: numbers that a resample takes in memory; None: K S.
    """
    num_scores, num_strata = shape
    size = max(1, _RESAMPLED_AT_ONCE // (width or num_scores * num_strata))
    for start in range(0, num_resamples, size):
        number = min(size, num_resamples - start)
        yield rng.multinomial(num_scores, np.full(num_scores, 1 / num_scores), size=(number, num_strata)).astype(float)
