"""Means, interquartile means and bootstrap intervals of scores.

Agarwal et al. Deep reinforcement learning at the edge of the statistical precipice (2021). Reimplemented because the
authors' package, rliable, currently fails to import on a fresh install.
"""

from __future__ import annotations

from collections.abc import Callable

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
