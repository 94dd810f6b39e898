"""Means over a last layer's weights: the points, the means of softmaxes, and Laplace's Gaussian against its Hessian."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian

from metarl.fewshot.last_layer import mean_of_softmaxes, normal_points
from metarl.fewshot.methods.gaussian_prototypes import GaussianPrototypes
from metarl.fewshot.methods.laplace import LaplaceAdaptation, LaplaceConfig, map_estimate
from metarl.fewshot.methods.versa import AmortisedPosterior, GaussianWeights, VersaConfig
from metarl.fewshot.problem import Classification, calibration_error
from metarl.fewshot.seen_classes import ClassSums
from metarl.records import Examples
from tests.metarl.fewshot.patterns import identity

PROBLEM = Classification((1, 2, 2), ways=10)


def test_points_are_quantiles_each_once_and_the_same_every_time():
    like = torch.zeros(3, 5, dtype=torch.float64)
    points = normal_points(16, like)
    quantiles = torch.special.ndtri((torch.arange(16, dtype=torch.float64) + 0.5) / 16)
    torch.testing.assert_close(points.sort(0).values, quantiles.unsqueeze(1).expand(-1, 5))
    assert torch.equal(points, normal_points(16, like))
    assert torch.equal(points[:, :3], normal_points(16, like[..., :3]))  # more classes change nothing for these


def test_mean_of_two_softmaxes_by_hand():
    """Logits (0, ln 3) and deviations (0, 0) and (0, -2 ln 3), of the likelier class: 3 / 4 and 1 / 4, so one half."""
    three = math.log(3)
    logits = torch.tensor([[[0.0, three]]])
    deviations = torch.tensor([[[[0.0, 0.0]]], [[[-2 * three, 0.0]]]])
    mean = mean_of_softmaxes(logits, torch.tensor([[[1, 0]]]), deviations)
    torch.testing.assert_close(mean.exp(), torch.tensor([[[0.5, 0.5]]]))


@pytest.mark.parametrize("num_points", [32, 1024])
def test_predictions_under_independent_weights_are_those_of_many_random_ones(num_points):
    generator = torch.Generator().manual_seed(0)
    adaptation = AmortisedPosterior(identity(3), hidden_size=2, num_points=num_points, generator=generator)
    mean = torch.randn(1, 4, 4, generator=generator)
    variance = 3 * torch.rand(1, 4, 4, generator=generator)
    state = GaussianWeights(ClassSums(torch.ones(1, 4), torch.zeros(1, 4, 3)), mean, variance)
    x = torch.randn(1, 2, 3, generator=generator)
    weights = mean + variance.sqrt() * torch.randn(100_000, 4, 4, generator=generator)
    drawn = (x[0] @ weights[..., :3].mT + weights[..., 3].unsqueeze(1)).softmax(-1).mean(0)
    tolerance = 0.04 if num_points == 32 else 0.004
    torch.testing.assert_close(adaptation.predict(state, x).exp()[0], drawn, atol=tolerance, rtol=0)


def few_examples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 2, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 2])


def test_laplace_is_the_gaussian_of_the_weights():
    """Against the slope and the Hessian of the log posterior over the weights, of a layer of two by three."""
    x, y = few_examples()
    adaptation = LaplaceAdaptation(identity(2), num_points=1024, num_steps=20).double()
    adaptation.scaled_log_variance.data.fill_(math.log(2.0) / 10)
    adaptation.scaled_log_temperature.data.zero_()
    state = adaptation.adapt(adaptation.prior(1), Examples(x.unsqueeze(0), y.unsqueeze(0)))
    best = 2.0 * (state.residual[0].T @ x).detach()  # [W, D]

    def nll(weights: Tensor) -> Tensor:
        logits = x @ weights.view(3, 2).T
        return nn.functional.cross_entropy(logits, y, reduction="sum") + weights.square().sum() / (2 * 2.0)

    slope = torch.func.grad(nll)(best.flatten())
    torch.testing.assert_close(slope, torch.zeros_like(slope))
    curvature: Any = hessian(nll, best.flatten())
    covariance = curvature.inverse()
    query = torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    root = torch.linalg.cholesky(covariance)
    normal = torch.randn(200_000, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = best.flatten() + normal @ root.T
    drawn = (weights.view(-1, 3, 2) @ query[0]).softmax(-1).mean(0)
    torch.testing.assert_close(adaptation.predict(state, query.unsqueeze(0)).exp()[0, 0], drawn, atol=0.004, rtol=0)
    adaptation.num_points = 0
    torch.testing.assert_close(adaptation.predict(state, query.unsqueeze(0))[0], query @ best.T)


@pytest.mark.parametrize(("ways", "shots", "variance"), [(5, 1, 100.0), (10, 5, 2.0), (20, 1, 10.0)])
def test_the_likeliest_logits_are_found_from_far_away(ways, shots, variance):
    """There, dual variables are one for the right class, less the probabilities."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(4, ways, 64, generator=generator, dtype=torch.float64).repeat(1, shots, 1)
    x = (centres + 0.7 * torch.randn(centres.shape, generator=generator, dtype=torch.float64)).relu()
    member = torch.eye(ways, dtype=torch.bool).repeat(shots, 1).expand(4, -1, -1)
    gram = variance * x @ x.mT
    dual = map_estimate(gram, member, 8)
    torch.testing.assert_close(dual, member.double() - (gram @ dual).softmax(-1), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("ways", "shots"), [(5, 1), (5, 5), (20, 5)])
def test_an_embedding_in_float32_costs_laplace_no_digits(ways, shots):
    """Examples of squared length 150, which are nearly equal within a class, under a prior of 100 / 64."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(2, ways, 64, generator=generator).repeat(1, shots + 1, 1)
    x = 1.5 * (centres + 0.1 * torch.randn(centres.shape, generator=generator))
    y = torch.arange(ways).repeat(shots).expand(2, -1)
    predictions = []
    for dtype in (torch.float32, torch.float64):
        adaptation = LaplaceAdaptation(identity(64), num_points=32, num_steps=8).to(dtype)
        own = x.to(dtype)
        state = adaptation.adapt(adaptation.prior(2), Examples(own[:, ways:], y))
        predictions.append(adaptation.predict(state, own[:, :ways]).exp())
        assert predictions[-1].dtype == dtype
    torch.testing.assert_close(predictions[0].double(), predictions[1], atol=1e-4, rtol=0)


def test_more_examples_make_more_certain():
    """The same example five times: the likelier class is more probable, and the Gaussian narrower."""
    x, y = torch.tensor([[1.0, 0], [0, 1]]).repeat(5, 1), torch.tensor([0, 1]).repeat(5)
    adaptation = LaplaceAdaptation(identity(2), num_points=64, num_steps=8)
    probability = []
    cost = []  # of not knowing the weights, in nats
    for count in (2, 10):
        data = Examples(x[:count].unsqueeze(0), y[:count].unsqueeze(0))
        state = adaptation.adapt(adaptation.prior(1), data)
        query = torch.tensor([[[1.0, 0]]])
        probability.append(adaptation.predict(state, query).exp()[0, 0, 0])
        adaptation.num_points = 0
        cost.append(adaptation.predict(state, query).log_softmax(-1)[0, 0, 0] - probability[-1].log())
        adaptation.num_points = 64
    assert 0.5 < probability[0] < probability[1] < 1
    assert 0 < cost[1] < cost[0]


def test_gaussian_prototypes_by_hand():
    """With centre zero and all variances one: after 2, mean 2 / 2 and variance 1 / 2; after 0 three times, 0 and 1 / 4.

    A query at 1 has variances 3 / 2 and 5 / 4, and is 0 and 1 away.
    """
    adaptation = GaussianPrototypes(identity(1))
    data = Examples(torch.tensor([[[2.0], [0.0], [0.0], [0.0]]]), torch.tensor([[0, 1, 1, 1]]))
    state = adaptation.adapt(adaptation.prior(1), data)
    mean, variance = adaptation.belief(state)
    torch.testing.assert_close(mean, torch.tensor([[[1.0], [0.0]]]))
    torch.testing.assert_close(variance, torch.tensor([[[0.5], [0.25]]]))
    expected = torch.tensor([[[-math.log(1.5) / 2, -(1 / 1.25 + math.log(1.25)) / 2]]])
    torch.testing.assert_close(adaptation.predict(state, torch.tensor([[[1.0]]])), expected)


@pytest.mark.parametrize("shots", [1, 5])
def test_gaussian_prototypes_know_how_often_they_are_right(shots):
    """On data that are as the model has them."""
    generator = torch.Generator().manual_seed(0)
    adaptation = GaussianPrototypes(identity(4))
    means = torch.randn(500, 10, 4, generator=generator)
    x = means.repeat(1, shots, 1) + torch.randn(500, 10 * shots, 4, generator=generator)
    state = adaptation.adapt(adaptation.prior(500), Examples(x, torch.arange(10).repeat(shots).expand(500, -1)))
    query = Examples(means + torch.randn(500, 10, 4, generator=generator), torch.arange(10).expand(500, -1))
    outcome = PROBLEM.outcome(adaptation.predict(state, query.x).unsqueeze(0), query)
    assert outcome.confidence is not None
    assert calibration_error(outcome.confidence).item() < 0.03


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: VersaConfig(num_points=12), "num_points is 12; must be 0 or a power of two"),
        (lambda: VersaConfig(hidden_size=0), "hidden_size is 0; must be at least 1"),
        (lambda: LaplaceConfig(num_steps=0), "num_steps is 0; must be at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        settings()
