"""Losses, moments, distributions and statistics on numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from metarl.nets.distributions import Categorical, DiagonalGaussian
from metarl.nets.moments import Moments
from metarl.rl import losses
from metarl.statistics import bootstrap_interval, interquartile_mean, mean


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1)


def test_advantage_by_hand():
    # gamma = lam = 1/2. delta = [1 + .5*2 - 1, 0 + .5*4 - 2, 2 + 0 - 4] = [1, 0, -2]
    # advantage = [1 + .25*(-.5), 0 + .25*(-2), -2]
    advantage = losses.generalized_advantage(
        column(1, 0, 2), column(1, 2, 4), column(2, 4, 0), column(1, 1, 0).bool(), gamma=0.5, lam=0.5
    )
    assert advantage.flatten().tolist() == [0.875, -0.5, -2.0]


def test_credit_stops_where_it_is_not_carried():
    # Same numbers, but nothing flows back from the third step: delta_2 = 0 - 2 (no bootstrap).
    advantage = losses.generalized_advantage(
        column(1, 0, 2), column(1, 2, 4), column(2, 0, 0), column(1, 0, 0).bool(), gamma=0.5, lam=0.5
    )
    assert advantage.flatten().tolist() == [0.5, -2.0, -2.0]


def test_lam_one_is_the_discounted_return_minus_the_value():
    generator = torch.Generator().manual_seed(0)
    reward, value = (torch.randn(9, 3, generator=generator) for _ in range(2))
    next_value = torch.cat([value[1:], torch.zeros(1, 3)])
    advantage = losses.generalized_advantage(
        reward, value, next_value, torch.ones(9, 3, dtype=torch.bool), gamma=0.9, lam=1.0
    )
    powers = 0.9 ** torch.arange(9.0)
    returns = torch.stack([(powers[: 9 - t, None] * reward[t:]).sum(0) for t in range(9)])
    torch.testing.assert_close(advantage, returns - value)


def test_discounted_sum_by_hand():
    start = column(1, 0, 1).bool()
    assert losses.discounted_sum(column(4, 2, 1), start, 0.5).flatten().tolist() == [4, 4, 1]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"),
    [(1.0, 2.0, -2.0), (1.5, 2.0, -2.4), (1.5, -2.0, 3.0), (0.5, 2.0, -1.0), (0.5, -2.0, 1.6)],
)
def test_clipped_surrogate_by_hand(ratio, advantage, loss):
    result = losses.clipped_surrogate(torch.tensor(math.log(ratio)), torch.tensor(0.0), torch.tensor(advantage), 0.2)
    assert result.item() == pytest.approx(loss)


@pytest.mark.parametrize(
    ("value", "old", "target", "clip", "loss"),
    [(3.0, 0.0, 1.0, None, 2.0), (3.0, 0.0, 4.0, 1.0, 4.5), (3.0, 0.0, 1.0, 1.0, 2.0), (0.5, 0.0, 1.0, 1.0, 0.125)],
)
def test_clipped_value_loss_by_hand(value, old, target, clip, loss):
    result = losses.clipped_value_loss(torch.tensor(value), torch.tensor(old), torch.tensor(target), clip)
    assert result.item() == pytest.approx(loss)


def test_kl_estimate_is_zero_at_equality_and_right_on_average():
    policy, other = Categorical(torch.tensor([0.0, 1.0, 2.0])), Categorical(torch.tensor([0.3, 1.0, 1.5]))
    action = torch.arange(3)
    log_prob, other_log_prob = (Categorical(p.logits.expand(3, 3)).log_prob(action) for p in (policy, other))
    assert losses.approximate_kl(log_prob, log_prob).abs().max() == 0
    expected = (log_prob.exp() * losses.approximate_kl(other_log_prob, log_prob)).sum()
    torch.testing.assert_close(expected, policy.kl(other))


def test_means_and_scales_over_valid_entries_only():
    values, valid = torch.tensor([1.0, 3.0, 100.0]), torch.tensor([True, True, False])
    assert losses.mean_where(values, valid) == 2
    assert losses.mean_where(values, torch.zeros(3, dtype=torch.bool)) == 0
    torch.testing.assert_close(losses.standardise_where(values, valid), torch.tensor([-1.0, 1.0, 0.0]))


def test_merging_moments_is_seeing_both():
    values = torch.randn(40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    merged = Moments.empty(3).merge(Moments.of(values[:7])).merge(Moments.of(values[7:7])).merge(Moments.of(values[7:]))
    assert merged.count == 40
    torch.testing.assert_close(merged.mean, values.mean(0))
    torch.testing.assert_close(merged.std, values.std(0, correction=0))


def test_constant_values_are_not_blown_up():
    moments = Moments.of(torch.full((5, 1), 3.0))
    assert moments.standardise(torch.tensor([[3.5]])).item() == 0.5


def test_gaussian_agrees_with_torch_distributions():
    generator = torch.Generator().manual_seed(2)
    mean, log_std, action = (torch.randn(4, 3, generator=generator) for _ in range(3))
    ours, theirs = DiagonalGaussian(mean, log_std), torch.distributions.Normal(mean, log_std.exp())
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action).sum(-1))
    torch.testing.assert_close(ours.entropy(), theirs.entropy().sum(-1))
    other = torch.distributions.Normal(action, torch.ones(4, 3))
    torch.testing.assert_close(
        ours.kl(DiagonalGaussian(action, torch.zeros(3))), torch.distributions.kl_divergence(theirs, other).sum(-1)
    )


def test_samples_follow_their_distribution():
    generator = torch.Generator().manual_seed(3)
    logits = torch.tensor([0.0, 1.0, -1.0])
    counts = Categorical(logits.expand(20_000, 3)).sample(generator).bincount(minlength=3)
    expected = 20_000 * logits.softmax(-1)
    assert ((counts - expected).abs() < 4 * expected.sqrt()).all()
    draws = DiagonalGaussian(torch.full((20_000, 1), 2.0), torch.tensor([0.5])).sample(generator)
    assert draws.mean().item() == pytest.approx(2.0, abs=4 * math.exp(0.5) / math.sqrt(20_000))
    assert draws.std().item() == pytest.approx(math.exp(0.5), rel=0.02)


def test_interquartile_mean_by_hand():
    assert interquartile_mean(np.array([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -50.0])) == 3.5  # of 2, 3, 4, 5
    assert interquartile_mean(np.array([7.0])) == 7.0


def test_bootstrap_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        low, high = bootstrap_interval(rng.normal(1.0, 2.0, 50), num_resamples=500, seed=seed)
        hits += low < 1.0 < high
    assert 0.88 <= hits / 200 <= 0.99


def test_strata_are_resampled_apart():
    # Within each column nothing varies, so neither does the mean; thrown together, it would.
    assert bootstrap_interval(np.array([[0.0, 10.0], [0.0, 10.0], [0.0, 10.0]])) == (5.0, 5.0)
    low, high = bootstrap_interval(np.array([0.0, 10.0, 0.0, 10.0]))
    assert low < 5.0 < high


@pytest.mark.parametrize("at_once", [1, 60, 61, 130, 12_345])
def test_an_interval_is_the_same_however_many_scores_are_resampled_at_once(monkeypatch, at_once):
    scores = np.random.default_rng(1).normal(size=(20, 3))
    for statistic in (mean, interquartile_mean):
        whole = bootstrap_interval(scores, statistic, num_resamples=101)
        monkeypatch.setattr("metarl.statistics._RESAMPLED_AT_ONCE", at_once)
        assert bootstrap_interval(scores, statistic, num_resamples=101) == whole
        monkeypatch.undo()


def test_nothing_to_resample_is_refused():
    with pytest.raises(ValueError, match="at least one score"):
        bootstrap_interval(np.array([]))
