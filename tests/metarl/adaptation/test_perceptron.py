"""Written-out gradients of perceptrons: those of autograd, to the second order."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metarl.adaptation.gradient import GradientAdaptation, supervised_loss
from metarl.adaptation.perceptron import PerceptronLoss
from metarl.adaptation.step_sizes import FixedStepSizes, PerParameterStepSizes
from metarl.fewshot.problem import cross_entropies, squared_errors
from metarl.nets.mlp import mlp
from metarl.records import Examples

NUM_TASKS, SHOTS = 3, 5
CRITERIA = {"squared_errors": squared_errors, "cross_entropies": cross_entropies}


def net(activation: Any, outputs: int) -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    made = mlp((4, 6, 5, outputs), activation=activation, output_gain=1.0, generator=generator)
    for parameter in made.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return made.double()


def data(criterion: str, seed: int, *, ragged: bool = False) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(NUM_TASKS, SHOTS, 4, generator=generator, dtype=torch.float64)
    if criterion == "cross_entropies":
        y = torch.randint(3, (NUM_TASKS, SHOTS), generator=generator)
    else:
        y = torch.randn(NUM_TASKS, SHOTS, 3, generator=generator, dtype=torch.float64)
    valid = torch.arange(SHOTS) < torch.tensor([[5], [3], [1]]) if ragged else None
    return Examples(x, y, valid)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_gradients_and_meta_gradients_are_those_of_autograd(criterion: str, activation: str, ragged: bool) -> None:
    made, losses = net(activation, 3), CRITERIA[criterion]
    written = GradientAdaptation(made, supervised_loss(made, losses), FixedStepSizes(0.3), num_steps=3)
    plain = GradientAdaptation(made, supervised_loss(made, losses), FixedStepSizes(0.3), num_steps=3, batching="vmap")
    support, query = data(criterion, 1, ragged=ragged), data(criterion, 2, ragged=ragged)
    assert written._written_out(support) is not None
    ours, known = (
        written.gradient_and_losses(written.prior(3), support),
        plain.gradient_and_losses(plain.prior(3), support),
    )
    torch.testing.assert_close(ours, known)

    def meta_gradient(adaptation: GradientAdaptation) -> tuple[Tensor, ...]:
        state = adaptation.adapt(adaptation.prior(NUM_TASKS), support)
        return torch.autograd.grad(adaptation.losses(state, query).mean(), list(made.parameters()))

    torch.testing.assert_close(meta_gradient(written), meta_gradient(plain))


def test_learned_step_sizes_have_the_same_gradient() -> None:
    made = net("tanh", 3)
    sizes = PerParameterStepSizes(dict(made.named_parameters()), 0.2, torch.Generator().manual_seed(0)).double()

    def gradient(batching: Any) -> tuple[Tensor, ...]:
        adaptation = GradientAdaptation(made, supervised_loss(made, squared_errors), sizes, batching=batching)
        state = adaptation.adapt(adaptation.prior(NUM_TASKS), data("squared_errors", 1))
        loss = adaptation.losses(state, data("squared_errors", 2)).mean()
        return torch.autograd.grad(loss, [*made.parameters(), *sizes.parameters()])

    torch.testing.assert_close(gradient("batched"), gradient("vmap"))


def test_parameters_and_gradients_are_in_the_order_of_the_net() -> None:
    made, support = net("tanh", 3), data("squared_errors", 1)
    names = [name for name, _ in made.named_parameters()]
    adaptation = GradientAdaptation(made, supervised_loss(made, squared_errors), FixedStepSizes(0.1))
    assert list(adaptation.gradient(adaptation.prior(NUM_TASKS), support)) == names
    assert list(adaptation.adapt(adaptation.prior(NUM_TASKS), support)) == names


def test_a_task_without_examples_keeps_its_parameters() -> None:
    made, support = net("tanh", 3), data("squared_errors", 1)
    adaptation = GradientAdaptation(made, supervised_loss(made, squared_errors), FixedStepSizes(0.1))
    before = adaptation.prior(NUM_TASKS)
    after = adaptation.adapt(before, support.map(lambda value: value[:, :0]))
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_other_nets_criteria_and_parts_are_left_to_autograd() -> None:
    made, support = net("tanh", 3), data("squared_errors", 1)
    generator = torch.Generator().manual_seed(0)
    smooth = mlp((4, 6, 3), activation="silu", output_gain=1.0, generator=generator)
    assert PerceptronLoss.of(smooth, squared_errors) is None
    assert PerceptronLoss.of(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), squared_errors) is None
    assert PerceptronLoss.of(made, lambda prediction, y: (prediction - y).abs().sum(-1)) is None
    loss = supervised_loss(made, squared_errors)
    head = GradientAdaptation(made, loss, FixedStepSizes(0.1), adapted=["4.weight", "4.bias"])
    assert head._written_out(support) is None


def test_a_first_order_step_has_no_second_derivative() -> None:
    made = net("tanh", 3)
    adaptation = GradientAdaptation(made, supervised_loss(made, squared_errors), FixedStepSizes(0.3), first_order=True)
    state = adaptation.adapt(adaptation.prior(NUM_TASKS), data("squared_errors", 1))
    own = adaptation.losses(state, data("squared_errors", 2)).mean()
    known = torch.autograd.grad(own, list(state.values()), retain_graph=True)
    gradient = torch.autograd.grad(own, list(made.parameters()))
    torch.testing.assert_close(gradient, tuple(part.sum(0) for part in known))
