"""What is made of predictions: losses, scores, likelihood and calibration, on small numbers."""

import math

import pytest
import torch

from metarl.fewshot.problem import Classification, Regression, calibration_error
from metarl.records import Examples

TWO = Classification((1, 2, 2), ways=2)
X = torch.zeros(1, 4, 1, 2, 2)


def logits(*probabilities: float) -> torch.Tensor:
    """Of the first of two classes, as predictions [1, 1, Q, 2]."""
    first = torch.tensor(probabilities)
    return torch.stack([first, 1 - first], -1).log()[None, None]


def test_accuracy_likelihood_and_calibration_by_hand():
    query = Examples(X, torch.tensor([[0, 0, 1, 1]]))
    outcome = TWO.outcome(logits(0.9, 0.9, 0.9, 0.2), query)
    metrics = TWO.metrics([outcome])
    assert outcome.score.tolist() == [[0.75]]
    assert metrics["nll"][0] == pytest.approx(-(2 * math.log(0.9) + math.log(0.1) + math.log(0.8)) / 4, rel=1e-5)
    # three are said with .9, of which two are right, and one with .8, which is right
    assert metrics["ece"][0] == pytest.approx((3 * abs(0.9 - 2 / 3) + abs(0.8 - 1)) / 4, rel=1e-5)


def test_padding_does_not_count():
    valid = torch.tensor([[True, True, False, False]])
    query = Examples(X, torch.tensor([[0, 0, 1, 1]]), valid)
    outcome = TWO.outcome(logits(0.9, 0.9, 0.9, 0.9), query)
    assert outcome.score.tolist() == [[1.0]]
    assert outcome.nll is not None
    assert float(outcome.nll[0, 0]) == pytest.approx(-math.log(0.9), rel=1e-5)
    assert outcome.confidence is not None
    assert float(outcome.confidence[..., 0].sum()) == 2
    assert float(calibration_error(outcome.confidence)[0]) == pytest.approx(0.1, rel=1e-5)


def test_saying_the_same_of_all_classes_is_chance_and_nothing_is_made_of_what_is_no_number():
    query = Examples(X, torch.tensor([[0, 0, 0, 1]]))
    assert TWO.score(torch.zeros(1, 4, 2), query).tolist() == [0.5]
    nonsense = torch.full((1, 1, 4, 2), math.nan)
    outcome = TWO.outcome(nonsense, query)
    metrics = TWO.metrics([outcome])
    assert outcome.score.tolist() == [[0.0]]
    assert math.isnan(metrics["nll"][0])
    assert metrics["ece"] == [0]


def test_squared_errors_are_means_over_outputs_and_examples():
    problem = Regression(1, 2)
    data = Examples(torch.zeros(1, 2, 1), torch.tensor([[[0.0, 0.0], [1.0, 3.0]]]))
    prediction = torch.zeros(1, 2, 2)
    assert problem.losses(prediction, data.y).tolist() == [[0.0, 5.0]]
    assert problem.score(prediction, data).tolist() == [2.5]
    assert problem.input_shape == (1,)
