"""Ranges: normal numbers, and what lies outside of each range, given or not."""

# Wrong values are given on purpose.
# pyright: reportArgumentType=false

import math

import pytest
import torch

from envs.locomotion.ranges import Disc, Multiplier
from envs.samplers import Choice, LogUniform, Normal, Range, Sampler, Uniform, task_record
from metarl.protocols import Split
from metarl.records import Record


def draw(sampler: Sampler, split: Split = "train", number: int = 4000) -> torch.Tensor:
    return sampler.sample((number,), split, torch.Generator().manual_seed(0))


def test_normal_numbers_have_their_mean_and_deviation_and_three_of_these_at_most():
    values = draw(Normal(2.0, 0.5), number=100_000)
    assert values.dtype == torch.float32
    assert float(values.mean()) == pytest.approx(2.0, abs=0.01)
    # A normal distribution that is cut off at ±3 has this variance.
    cut = 1 - 6 * math.exp(-4.5) / math.sqrt(2 * math.pi) / math.erf(3 / math.sqrt(2))
    assert float(values.std()) == pytest.approx(0.5 * math.sqrt(cut), rel=0.01)
    assert float((values < 2.5).float().mean()) == pytest.approx(0.8413, abs=0.005)
    assert 0.5 <= float(values.min()) < 0.6 < 3.4 < float(values.max()) <= 3.5
    assert bool(Normal(2.0, 0.5).contains(values).all())


def test_what_lies_outside_a_normal_range_keeps_the_sign():
    positive, both = draw(Normal(3, 0.5), "ood"), draw(Normal(0, 1), "ood")
    assert 4.5 < float(positive.min()) < float(positive.max()) <= 5.5
    assert 3 < float(both.abs().min()) < float(both.abs().max()) <= 5
    assert float((both > 0).float().mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("sampler", "low", "high"),
    [
        (Uniform(0, 3, ood=(3, 10)), 3, 10),
        (Uniform(0, 3, ood=[-1, 0]), -1, 0),
        (LogUniform(1, 2, ood=(4, 16)), 4, 16),
        (Normal(0, 1, ood=(5, 6)), 5, 6),
        (Choice([1, 2], ood=[3, 4]), 3, 4),
    ],
)
def test_what_lies_outside_can_be_said(sampler, low, high):
    inside, outside = draw(sampler), draw(sampler, "ood")
    assert bool(sampler.contains(inside).all())
    assert not bool(sampler.contains(outside).any())
    assert low <= float(outside.min()) < low + 0.01 * (high - low)
    assert high - 0.02 * (high - low) < float(outside.max()) <= high
    assert torch.equal(draw(sampler, "test"), inside)


@pytest.mark.parametrize(
    ("sampler", "low", "high"),
    [
        (Range(0, 3), 3, 4),
        (Range(-3, -1), -3 - 2 / 3, -3),
        (Uniform(-1, 2, ood="extrapolation"), -1.5, 2.5),
        (Range(0, 3, ood=(4, 5)), 4, 5),
        (LogUniform(1, 8, ood="extrapolation"), 1 / math.sqrt(2), 8 * math.sqrt(2)),
        (Multiplier(2.0, 3.0), 1 / 16, 16),
        (Range(0, 3, ood="interpolation"), 1, 2),
        (LogUniform(1, 8, ood="interpolation"), 2, 4),
        (Multiplier(2.0, 3.0, ood="interpolation"), 1 / 2, 2),
        (Multiplier(2.0, 3.0, ood="interpolation", num_values=3), 1, 1),
    ],
    ids=repr,
)
def test_what_lies_outside_has_a_name(sampler, low, high):
    inside, outside = draw(sampler), draw(sampler, "ood", 20_000)
    assert bool(sampler.contains(inside).all())
    assert not bool(sampler.contains(outside).any())
    assert float(outside.min()) == pytest.approx(low, rel=0.01, abs=0.01)
    assert float(outside.max()) == pytest.approx(high, rel=0.01, abs=0.01)
    assert torch.equal(draw(sampler, "test"), inside)


def test_goals_of_a_disc_are_left_out_by_area():
    disc = Disc(3.0, ood="interpolation")
    outside = draw(disc, "ood")
    assert outside.shape == (4000, 2)
    assert not bool(disc.contains(outside).any())
    assert math.sqrt(3) < float(outside.norm(dim=1).min()) < float(outside.norm(dim=1).max()) < math.sqrt(6)
    assert bool(disc.contains(draw(disc)).all())


def test_given_ratios_are_even_on_a_logarithmic_scale():
    outside = draw(LogUniform(1, 2, ood=(4, 16)), "ood", 20_000)
    assert float((outside < 8).float().mean()) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Normal(math.nan, 1), "mean is nan; must be a finite number"),
        (lambda: Normal(0, 0), "std is 0; must be positive and finite"),
        (
            lambda: Uniform(0, 3, ood=(2, 4)),
            "ood is (2, 4); must lie outside the training range, 0 to 3",
        ),
        (
            lambda: Normal(0, 1, ood=(2, 9)),
            "ood is (2, 9); must lie outside the training range, -3 to 3",
        ),
        (lambda: Uniform(0, 3, ood=(4,)), "ood is (4,); must be two numbers, the low and the high end"),
        (
            lambda: Range(0, 3, ood="middle"),
            "ood is 'middle'; must be extrapolation or interpolation or two numbers, the low and the high end",
        ),
        (
            lambda: Normal(0, 1, ood="interpolation"),
            "ood is 'interpolation'; must be two numbers, the low and the high end",
        ),
        (lambda: Multiplier(1.0), "base is 1.0; must be at least 1.001"),
        (
            lambda: Multiplier(2.0, ood="interpolation", num_values=4),
            "num_values is 4; must be a multiple of 3 with ood 'interpolation'",
        ),
        (lambda: Disc(0), "radius is 0; must be positive and finite"),
        (lambda: Disc(1, ood="beyond"), "ood is 'beyond'; must be one of extrapolation, interpolation"),
        (lambda: LogUniform(1, 2, ood=(0, 0.5)), "ood is (0, 0.5); must be positive and finite"),
        (lambda: Choice([1, 2], ood=[2, 3]), "ood has 2, which is also in values; the two must not overlap"),
        (lambda: Choice([1], ood=[math.inf]), "ood is [inf]; must be a list of finite numbers"),
    ],
)
def test_a_wrong_range_is_named(make, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the whole message is compared
        make()
    assert str(error.value) == message


def test_records_of_equal_names_are_of_one_class_and_may_extend_another():
    plain = task_record(("mass",))
    assert task_record(("mass",)) is plain
    longer = task_record(("noise",), plain)
    tasks = longer(mass=torch.ones(2), noise=torch.zeros(2))
    assert isinstance(tasks, plain)
    assert isinstance(tasks, Record)
    assert vars(tasks[:1].map(lambda value: value + 1)) == {"mass": torch.tensor([2.0]), "noise": torch.tensor([1.0])}


def test_they_are_shown_in_short():
    assert repr(Choice([1, 2])) == "Choice(values=[1, 2])"
    assert repr(Uniform(0, 3, scale=False)) == "Uniform(low=0, high=3, scale=False)"
