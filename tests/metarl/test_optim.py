"""The gradient step that all learners share."""

import copy
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from metarl.optim import check_finite, gradient_step, load_adam


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


@pytest.mark.parametrize(("gradient", "learning_rate"), [(math.nan, 0.1), (math.inf, 0.1), (10.0, 3e38)])
def test_a_step_that_spoils_a_parameter_is_an_error(gradient, learning_rate):
    own = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([own], lr=learning_rate)
    with pytest.raises(FloatingPointError, match="not finite after a gradient step at learning rate"):
        gradient_step(optimizer, own.sum() * gradient)


def test_numbers_whose_sum_alone_is_not_finite_are_no_error():
    own = torch.nn.Parameter(torch.full((2,), 3e38))
    gradient_step(torch.optim.SGD([own], lr=0.0), own.sum())


def trained_adam(**settings: Any) -> torch.optim.Adam:
    parameters = [torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(3))]
    optimizer = torch.optim.Adam(parameters, lr=0.1, **settings)
    for _ in range(2):
        gradient_step(optimizer, [parameter.square().sum() for parameter in parameters])
    return optimizer


@pytest.mark.parametrize("fused", [False, True])
def test_saved_moments_come_back_bit_for_bit(fused):
    optimizer = trained_adam(fused=fused)
    other = torch.optim.Adam(trained_adam().param_groups[0]["params"], fused=fused)
    load_adam(other, optimizer.state_dict())
    one, two = optimizer.state_dict(), other.state_dict()
    assert one["param_groups"] == two["param_groups"]
    for index, moments in one["state"].items():
        assert all(torch.equal(value, two["state"][index][name]) for name, value in moments.items())


def change_group(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda state: state["param_groups"][0].update(fields)


def change_moment(name: str, change: Callable[[torch.Tensor], Any]) -> Callable[[dict[str, Any]], object]:
    return lambda state: state["state"][0].update({name: change(state["state"][0][name])})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: state["param_groups"][0].pop("betas"), "betas"),
        (lambda state: state["param_groups"].clear(), "param_groups must be a list of 1"),
        (lambda state: state["param_groups"].__setitem__(0, 3), "param_groups has a int"),
        (change_group(betas=(0.9, 2.0)), "optimizer.betas is"),
        (change_group(betas=None), "optimizer.betas is None"),
        (change_group(eps="x"), "optimizer.eps is 'x'"),
        (change_group(amsgrad=True), "optimizer.amsgrad is True"),
        (change_group(lr=math.nan), "optimizer.lr is nan"),
        (change_group(lr=torch.zeros(2)), "optimizer.lr is tensor"),
        (change_group(params=[0]), "optimizer.params is"),
        (lambda state: state["state"].update({7: {}}), "has parameter 7"),
        (lambda state: state["state"][0].pop("exp_avg"), "must have step, exp_avg, exp_avg_sq"),
        (lambda state: state.update(state=[1]), "state is of type list"),
        (change_moment("exp_avg", lambda value: value[:1]), "has shape [1, 3]; must be [2, 3]"),
        (change_moment("exp_avg_sq", lambda value: torch.zeros(2000)), "has shape [2000]; must be [2, 3]"),
        (change_moment("exp_avg", torch.Tensor.double), "must be a dense tensor of torch.float32"),
        (change_moment("exp_avg", torch.Tensor.to_sparse), "must be a dense tensor"),
        (change_moment("exp_avg", lambda value: torch.zeros(()).expand(2, 3)), "is an expanded tensor"),
        (change_moment("exp_avg_sq", lambda value: value - 1), "must be finite and not negative"),
        (change_moment("exp_avg", lambda value: value * math.nan), "must be finite"),
        (change_moment("step", lambda value: torch.zeros(3)), "step has shape [3]; must be []"),
        (change_moment("step", lambda value: 2), "step must be a dense tensor"),
    ],
)
@pytest.mark.parametrize("fused", [False, True])
def test_an_optimiser_state_that_does_not_fit_is_refused_and_changes_nothing(damage, message, fused):
    optimizer = trained_adam(fused=fused)
    before, damaged = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(optimizer.state_dict())
    damage(damaged)
    with pytest.raises((ValueError, KeyError), match=re.escape(message)):
        load_adam(optimizer, damaged)
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)


def test_a_switch_that_an_earlier_torch_did_not_have_may_be_absent():
    optimizer = trained_adam()
    state = optimizer.state_dict()
    del state["param_groups"][0]["decoupled_weight_decay"]
    load_adam(optimizer, state)
    gradient_step(optimizer, optimizer.param_groups[0]["params"][0].sum())
