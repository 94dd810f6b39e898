"""The gradient step that all learners share."""

import math

import pytest
import torch

from metarl.optim import check_finite, gradient_step


def test_a_step_clips_follows_the_schedule_and_touches_its_own_parameters_alone():
    own, other = (torch.nn.Parameter(torch.tensor([3.0, 4.0])) for _ in range(2))
    optimizer = torch.optim.SGD([own], lr=1.0)
    parts = (part for part in (own.square().sum(), (own * other).sum()))  # a gradient of (9, 12)
    norm = gradient_step(optimizer, parts, max_norm=1.5, learning_rate=0.5)
    assert float(norm) == pytest.approx(15)
    torch.testing.assert_close(own.detach(), torch.tensor([3.0 - 0.45, 4.0 - 0.6]))
    assert other.grad is None
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert math.isnan(gradient_step(optimizer, own.sum()))
    torch.testing.assert_close(own.detach(), torch.tensor([3.0 - 0.95, 4.0 - 1.1]))


def test_parameters_that_are_not_finite_are_named():
    module = torch.nn.Linear(1, 1)
    check_finite(module, "update 1")
    module.bias.data[:] = math.nan
    with pytest.raises(FloatingPointError, match="parameter bias is not finite after update 2"):
        check_finite(module, "update 2")
