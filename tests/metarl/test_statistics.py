"""Statistics of many runs, against rliable's formulae written a second time, score by score."""

import random

import numpy as np
import pytest

from metarl.statistics import (
    bootstrap_interval,
    difference_interval,
    improvement_interval,
    interquartile_mean,
    interval_over_rows,
    performance_profile,
    probability_of_improvement,
    profile_interval,
    ratio_interval,
    tail_mean,
)


def drawn(num_runs: int, num_tasks: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Scores of tasks that differ in difficulty; some of them are equal."""
    difficulty = np.random.default_rng(99).normal(0, 2, num_tasks)
    return np.round(np.random.default_rng(seed).normal(shift, 1, (num_runs, num_tasks)) + difficulty, 1)


def plain_iqm(scores: np.ndarray) -> float:
    """scipy.stats.trim_mean(scores, proportiontocut=0.25, axis=None), as rliable has it."""
    values = sorted(scores.ravel().tolist())
    cut = int(0.25 * len(values))
    kept = values[cut : len(values) - cut]
    return sum(kept) / len(kept)


def plain_improvement(scores: np.ndarray, others: np.ndarray) -> float:
    """The Mann-Whitney U of each task by counting pairs, over their number, averaged over tasks."""
    by_task = []
    for left, right in zip(scores.T.tolist(), others.T.tolist(), strict=True):
        pairs = [(a, b) for a in left for b in right]
        by_task.append(sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs))
    return sum(by_task) / len(by_task)


def plain_resample(scores: np.ndarray, chance: random.Random) -> np.ndarray:
    """Runs drawn with replacement in each task by itself."""
    return np.array([[chance.choice(task) for _ in task] for task in scores.T.tolist()]).T


def plain_interval(statistic, *groups: np.ndarray) -> tuple[float, float]:
    chance = random.Random(3)
    values = [statistic(*(plain_resample(scores, chance) for scores in groups)) for _ in range(2000)]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


@pytest.mark.parametrize(("num_runs", "num_tasks"), [(1, 7), (3, 5), (5, 4), (4, 1), (2, 3)])
def test_the_interquartile_mean_is_that_of_all_runs_and_tasks_together(num_runs, num_tasks):
    scores = drawn(num_runs, num_tasks, 0)
    assert float(interquartile_mean(scores.ravel())) == pytest.approx(plain_iqm(scores), rel=1e-12)


def test_its_interval_agrees_with_one_resampled_score_by_score():
    scores = drawn(5, 8, 1)
    low, high = plain_interval(plain_iqm, scores)
    width = high - low
    assert bootstrap_interval(scores, interquartile_mean) == pytest.approx((low, high), abs=0.08 * width)


@pytest.mark.parametrize(("num_runs", "num_others", "num_tasks"), [(3, 3, 4), (5, 2, 6), (1, 4, 3), (1, 1, 1)])
def test_the_probability_of_improvement_counts_pairs_of_runs_in_each_task(num_runs, num_others, num_tasks):
    scores, others = drawn(num_runs, num_tasks, 2), drawn(num_others, num_tasks, 3)
    expected = plain_improvement(scores, others)
    assert probability_of_improvement(scores, others) == pytest.approx(expected, rel=1e-12)
    assert probability_of_improvement(others, scores) == pytest.approx(1 - expected, rel=1e-12)
    assert probability_of_improvement(scores, scores) == pytest.approx(0.5)


def test_the_interval_of_the_probability_of_improvement_agrees_with_one_resampled_score_by_score():
    scores, others = drawn(4, 6, 4, shift=1.0), drawn(3, 6, 5)
    low, high = plain_interval(plain_improvement, scores, others)
    assert 0.5 < low < high < 1
    assert improvement_interval(scores, others) == pytest.approx((low, high), abs=0.08 * (high - low))


def test_rows_whose_scores_go_together_are_drawn_as_wholes():
    scores = np.array([[1.0, 1.2, 0.9], [5.0, 5.1, 5.2], [9.0, 9.3, 9.1], [3.0, 3.1, 2.9]])
    chance = random.Random(4)
    values = [plain_iqm(np.array([chance.choice(scores.tolist()) for _ in scores])) for _ in range(2000)]
    low, high = np.percentile(values, [2.5, 97.5])
    narrow = bootstrap_interval(scores, interquartile_mean)
    wide = interval_over_rows(scores, interquartile_mean)
    assert wide == pytest.approx((low, high), abs=0.08 * (high - low))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_a_profile_is_the_fraction_of_scores_above_each_threshold_with_its_interval():
    scores, thresholds = drawn(4, 6, 5), np.array([-9.0, -1.0, 0.0, 1.3, 9.0])
    profile = performance_profile(scores, thresholds)
    assert profile == pytest.approx([np.mean([s > t for s in scores.ravel().tolist()]) for t in thresholds])
    low, high = profile_interval(scores, thresholds)
    for place in (1, 2, 3):
        expected = plain_interval(lambda s, t=thresholds[place]: float((s > t).mean()), scores)
        assert (low[place], high[place]) == pytest.approx(expected, abs=0.05)
    assert [low[0], high[0], low[-1], high[-1]] == [1, 1, 0, 0]


def test_resamples_in_pieces_are_of_the_same_distribution(monkeypatch):
    scores, others = drawn(4, 6, 6), drawn(4, 6, 7)
    whole = improvement_interval(scores, others), profile_interval(scores, np.zeros(1))
    monkeypatch.setattr("metarl.statistics._RESAMPLED_AT_ONCE", 500)
    pieces = improvement_interval(scores, others), profile_interval(scores, np.zeros(1))
    assert pieces[0] == pytest.approx(whole[0], abs=0.03)
    assert np.ravel(pieces[1]) == pytest.approx(np.ravel(whole[1]), abs=0.05)


@pytest.mark.parametrize(("fraction", "expected"), [(0.05, 1.0), (0.2, 1.5), (0.25, 2.0), (1.0, 5.5)])
def test_a_tail_mean_is_that_of_the_lowest_scores_and_of_one_at_least(fraction, expected):
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 11.0))
    assert tail_mean(scores, fraction) == expected
    assert tail_mean(np.stack([scores, -scores]), 0.2).tolist() == [1.5, -9.5]


def test_the_interval_of_a_difference_is_that_of_independent_means():
    rng = np.random.default_rng(1)
    scores, others = rng.normal(3, 2, 300), rng.normal(1, 1, 200)
    low, high = difference_interval(scores, others)
    error = np.sqrt(scores.var() / 300 + others.var() / 200)
    assert (low + high) / 2 == pytest.approx(scores.mean() - others.mean(), abs=0.1 * error)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_the_interval_of_a_ratio_is_of_sums_of_pairs():
    wholes = np.array([1.0, 2.0, 3.0, 4.0])
    assert ratio_interval(wholes / 4, wholes) == pytest.approx((0.25, 0.25))
    low, high = ratio_interval(np.array([1.0, 0.0, 0.0, 1.0]), np.ones(4))
    assert (low, high) == (0, 1)
    assert all(np.isnan(ratio_interval(wholes, np.zeros(4))))
