"""The optima of MetaOptNet's heads: certificates, hand numbers, derivatives."""

import pytest
import torch
from torch import Tensor

from metarl.fewshot.methods.meta_opt_net import Ridge, SupportVectors, dual_variables, nearest_in_simplex

COST = 0.1


def task(num_tasks: int, ways: int, shots: int, size: int) -> tuple[Tensor, Tensor]:
    """Embeddings [N, K, size] of classes that overlap, and their classes [N, K, W]."""
    generator = torch.Generator().manual_seed(ways)
    centres = torch.randn(num_tasks, ways, size, generator=generator, dtype=torch.float64).repeat(1, shots, 1)
    x = centres + torch.randn(centres.shape, generator=generator, dtype=torch.float64)
    return x, torch.eye(ways, dtype=torch.bool).repeat(shots, 1).expand(num_tasks, -1, -1)


def gram_of(x: Tensor, ridge: float = 1.0) -> Tensor:
    return x @ x.mT + ridge * torch.eye(x.shape[1], dtype=x.dtype)


@pytest.mark.parametrize(("ways", "shots", "size"), [(2, 1, 3), (5, 1, 64), (5, 5, 10), (20, 1, 16)])
def test_machine_has_no_duality_gap(ways, shots, size):
    """What is minimised by weights is never below what is maximised by duals; where both are equal, both are best.

    The ridge is as one more feature for each example, of size one.
    """
    x, member = task(3, ways, shots, size)
    dual = dual_variables(gram_of(x), member, COST, 3000, least=1.0)
    target = member.double()
    torch.testing.assert_close(dual.sum(-1), torch.zeros_like(dual[..., 0]))
    assert bool((dual <= COST * target + 1e-12).all())
    squared = (dual * (gram_of(x) @ dual)).sum((1, 2)) / 2
    logits = gram_of(x) @ dual
    lacks = (logits + 1 - target).amax(-1) - (logits * target).sum(-1)
    torch.testing.assert_close(squared + COST * lacks.sum(-1), (dual * target).sum((1, 2)) - squared)
    assert bool((lacks > 0.1).any()) or size == 64  # costs count somewhere, so that the problem is not too easy


def test_machine_of_two_examples_by_hand():
    """x = 1 and -1: weights 2a and -2a; the lead of each, 4a, is one at a = 1/4, or a = C where that is less."""
    signs = torch.tensor([[[1.0, -1], [-1, 1]]], dtype=torch.float64)
    gram = signs + 1e-9 * torch.eye(2)
    member = torch.eye(2, dtype=torch.bool).unsqueeze(0)
    for cost, a in ((1.0, 0.25), (0.1, 0.1)):
        dual = dual_variables(gram, member, cost, 2000, least=1e-9)
        torch.testing.assert_close(dual, a * signs, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("ways", "shots", "size"), [(5, 1, 64), (5, 5, 256), (20, 5, 256)])
def test_two_hundred_steps_in_float32_are_enough(ways, shots, size):
    """The right class's lead over the others is that of the optimum."""
    x, member = task(3, ways, shots, size)
    best = gram_of(x) @ dual_variables(gram_of(x), member, COST, 2000, least=1.0)
    x = x.float()
    found = gram_of(x) @ dual_variables(gram_of(x), member, COST, 200, least=1.0)
    torch.testing.assert_close(found.double(), best, atol=1e-3, rtol=0)


@pytest.mark.parametrize("head", [Ridge(0.5), SupportVectors(1.0, COST, 1500)], ids=["ridge", "svm"])
def test_derivatives_of_the_optimum_are_those_of_differences(head):
    x, member = task(2, 3, 2, 4)
    outputs = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def value(x: Tensor) -> Tensor:
        return (head(x @ x.mT, member) * outputs).sum()

    change = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(value(x.requires_grad_()), x)
    with torch.no_grad():
        slope = (value(x + 1e-5 * change) - value(x - 1e-5 * change)) / 2e-5
    torch.testing.assert_close((gradient * change).sum(), slope, rtol=1e-5, atol=1e-8)


def test_ridge_is_the_best_of_least_squares():
    """Where the loss over weights is least, its slope is zero."""
    x, member = task(2, 3, 2, 4)
    weights = (x.mT @ Ridge(0.5)(x @ x.mT, member)).requires_grad_()
    loss = (x @ weights - member.double()).square().sum() + 0.5 * weights.square().sum()
    (slope,) = torch.autograd.grad(loss, weights)
    torch.testing.assert_close(slope, torch.zeros_like(slope))


def test_nearest_point_of_a_simplex_by_hand():
    """(0.5, 0.1, -1) is 0.4 / 2 too low for the sum of one; without the first, all goes to the second."""
    values = torch.tensor([[0.5, 0.1, -1.0], [0.5, 0.1, -1.0], [9.0, 9.0, 9.0]])
    competing = torch.tensor([[True, True, True], [False, True, True], [False, False, False]])
    expected = torch.tensor([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(nearest_in_simplex(values, competing, 1.0), expected)
