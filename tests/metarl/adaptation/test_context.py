"""Beliefs: against closed forms, torch.distributions and each other."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from metarl.adaptation.context import Aggregation, ContextAdaptation

NUM_TASKS, NUM_ITEMS, LATENT = 3, 5, 2


def spoken(aggregation: Aggregation) -> ContextAdaptation:
    """Items are their own votes."""
    return ContextAdaptation(
        lambda item: item, lambda latent, x: latent + x, latent_size=LATENT, aggregation=aggregation
    ).double()


def votes(size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(NUM_TASKS, NUM_ITEMS, size, generator=generator, dtype=torch.float64)


def adapted(adaptation: ContextAdaptation, context: Tensor):
    return adaptation.adapt(adaptation.prior(len(context)), context)


@pytest.mark.parametrize(("aggregation", "factors"), [("product", 0), ("product_with_prior", 1)])
def test_the_posterior_is_the_product_of_the_gaussians(aggregation, factors):
    """Densities multiplied on a grid, normalised, and their moments taken."""
    adaptation, context = spoken(aggregation), votes(2 * LATENT)
    posterior = adaptation.posterior(adapted(adaptation, context))
    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    for task in range(NUM_TASKS):
        for latent in range(LATENT):
            scale = torch.nn.functional.softplus(context[task, :, LATENT + latent]).sqrt()
            log_density = Normal(context[task, :, latent, None], scale[:, None]).log_prob(grid).sum(0)
            log_density = log_density + factors * Normal(0.0, 1.0).log_prob(grid)
            density = log_density.softmax(0)
            mean = (density * grid).sum()
            std = (density * (grid - mean).square()).sum().sqrt()
            torch.testing.assert_close(posterior.mean[task, latent], mean, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(posterior.log_std[task, latent].exp(), std, rtol=1e-6, atol=1e-6)


def test_hand_numbers():
    """One latent, two data: means 1 and 4, variances 1/2 and 1, so precisions 2 and 1; logs of softplus undone."""
    raw = torch.tensor([0.5, 1.0], dtype=torch.float64).expm1().log()
    context = torch.stack([torch.tensor([1.0, 4.0], dtype=torch.float64), raw], -1)[None]
    for aggregation, precision, mean in (("product", 3, 2.0), ("product_with_prior", 4, 1.5)):
        adaptation = ContextAdaptation(lambda item: item, max, latent_size=1, aggregation=aggregation).double()  # type: ignore[arg-type]
        posterior = adaptation.posterior(adapted(adaptation, context))
        assert posterior.mean.item() == pytest.approx(mean)
        assert posterior.log_std.exp().square().item() == pytest.approx(1 / precision)


def test_points_are_means_by_weight():
    context = votes(LATENT + 1)
    latent = spoken("attention").latent(adapted(spoken("attention"), context))
    weight = (5 * (context[..., LATENT:] / 5).tanh()).softmax(1)
    torch.testing.assert_close(latent, (weight * context[..., :LATENT]).sum(1))
    plain = votes(LATENT)
    torch.testing.assert_close(spoken("mean").latent(adapted(spoken("mean"), plain)), plain.mean(1))


@pytest.mark.parametrize("aggregation", ["product", "product_with_prior", "mean", "attention"])
def test_nothing_seen_is_the_prior(aggregation):
    adaptation = spoken(aggregation)
    prior = adaptation.prior(NUM_TASKS)
    assert torch.equal(adaptation.latent(prior), torch.zeros(NUM_TASKS, LATENT, dtype=torch.float64))
    if adaptation.is_random:
        assert torch.equal(adaptation.posterior(prior).log_std.exp(), torch.ones(NUM_TASKS, LATENT))
        assert torch.equal(adaptation.divergence(prior), torch.zeros(NUM_TASKS))
    context = votes({"mean": LATENT, "attention": LATENT + 1}.get(aggregation, 2 * LATENT))
    unseen = adaptation.adapt(prior, context, torch.zeros(NUM_TASKS, NUM_ITEMS, dtype=torch.bool))
    assert torch.equal(unseen.weight, prior.weight)
    assert torch.equal(unseen.total, prior.total)


@pytest.mark.parametrize("aggregation", ["product", "product_with_prior"])
def test_the_divergence_is_that_of_torch(aggregation):
    adaptation = spoken(aggregation)
    state = adapted(adaptation, votes(2 * LATENT))
    posterior = adaptation.posterior(state)
    theirs = kl_divergence(Normal(posterior.mean, posterior.log_std.exp()), Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(adaptation.divergence(state), theirs)


def test_draws_are_the_posteriors_and_carry_the_gradient():
    adaptation, context = spoken("product"), votes(4).requires_grad_()
    state = adapted(adaptation, context).map(lambda value: value[:1].expand(20_000, -1))
    draws = adaptation.latent(state, torch.Generator().manual_seed(0))
    posterior = adaptation.posterior(state)
    torch.testing.assert_close(draws.mean(0), posterior.mean[0], rtol=0, atol=0.02)
    torch.testing.assert_close(draws.std(0), posterior.log_std[0].exp(), rtol=0.02, atol=0)
    (gradient,) = torch.autograd.grad(draws.square().sum(), context)
    assert (gradient[0].abs() > 0).all()
    assert (gradient[1:] == 0).all()


@pytest.mark.parametrize("aggregation", ["product", "attention"])
def test_the_path_holds_the_belief_after_each_item(aggregation):
    adaptation, context = spoken(aggregation), votes(2 * LATENT if aggregation == "product" else LATENT + 1)
    start = adapted(adaptation, context + 1)
    path = adaptation.path(start, context)
    assert len(path) == NUM_ITEMS + 1
    for items in range(NUM_ITEMS + 1):
        valid = torch.arange(NUM_ITEMS).expand(NUM_TASKS, -1) < items
        some = adaptation.adapt(start, context, valid)
        torch.testing.assert_close(path[items].weight, some.weight)
        torch.testing.assert_close(path[items].total, some.total)


def test_a_datum_that_is_certain_stays_finite():
    context = torch.tensor([[[2.0, -200.0]]])
    adaptation = ContextAdaptation(lambda item: item, max, latent_size=1, aggregation="product")
    posterior = adaptation.posterior(adapted(adaptation, context))
    assert posterior.mean.item() == pytest.approx(2.0)
    assert posterior.log_std.exp().square().item() == pytest.approx(1e-7, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aggregation": "sum", "latent_size": 1}, "aggregation is 'sum'; must be one of product, "),
        ({"aggregation": "mean", "latent_size": 0}, "latent_size is 0; must be at least 1"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ContextAdaptation(lambda item: item, max, **settings)


def test_a_point_has_no_distribution():
    with pytest.raises(ValueError, match="aggregation is 'mean'; its belief is a point"):
        spoken("mean").divergence(spoken("mean").prior(1))
