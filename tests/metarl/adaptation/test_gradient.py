"""Gradient adaptation: against a loop over tasks, finite differences in float64 and closed forms."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from metarl.adaptation.batching import BATCHINGS
from metarl.adaptation.gradient import GradientAdaptation, Params, parameters_of, supervised_loss
from metarl.adaptation.step_sizes import FixedStepSizes, PerParameterStepSizes, PerStepStepSizes
from metarl.fewshot.methods.imaml import ImplicitAdaptation
from metarl.nets.mlp import LayerNorm, Tanh, linear, mlp, takes_tasks
from metarl.nets.norm import Norm
from metarl.optim import conjugate_gradient
from metarl.records import Examples

NUM_TASKS, SHOTS, IN, OUT = 3, 5, 4, 2


def perceptron(*between: Callable[[], nn.Module]) -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    first, last = linear(IN, 6, gain=1.0, generator=generator), linear(6, OUT, gain=1.0, generator=generator)
    net = nn.Sequential(first, *(make() for make in between), nn.Tanh(), last)
    for parameter in net.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return net.double()


def convolution() -> nn.Sequential:
    net = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2, padding=1), Norm(3, "transductive"), nn.Tanh())
    net = nn.Sequential(*net, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3, OUT))
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return net.double()


NETS: dict[str, Callable[[], nn.Sequential]] = {
    "perceptron": perceptron,
    "layer_norm": lambda: perceptron(lambda: LayerNorm(6)),
    "convolution": convolution,
}
nets = pytest.mark.parametrize("net", NETS)
PARTS = ("all", "head", "body", "bias")
STEP_SIZES = ("fixed", "decaying", "per_parameter", "per_step")


def squared_error(prediction: Tensor, y: Tensor) -> Tensor:
    return (prediction - y).square().mean(-1)  # of each example


def step_sizes(kind: str, net: nn.Module, adapted: list[str]) -> nn.Module:
    params = {name: value for name, value in net.named_parameters() if name in adapted}
    if kind == "per_parameter":
        return PerParameterStepSizes(params, (0.05, 0.3), torch.Generator().manual_seed(1))
    if kind == "per_step":
        sizes = PerStepStepSizes(params, 0.1, 2)
        for index, value in enumerate(sizes.parameters()):
            value.data += 0.02 * index + 0.05 * torch.arange(2)
        return sizes.double()
    return FixedStepSizes((0.3, 0.1) if kind == "decaying" else 0.2)


def adaptation(net: str = "perceptron", part: str = "all", kind: str = "fixed", **settings: Any) -> GradientAdaptation:
    module = NETS[net]()
    settings = {"batching": "batched" if takes_tasks(module) else "vmap"} | settings
    names = parameters_of(module, part)  # type: ignore[arg-type]
    sizes = step_sizes(kind, module, names)
    return GradientAdaptation(module, supervised_loss(module, squared_error), sizes, adapted=names, **settings)


def examples(seed: int) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((NUM_TASKS, SHOTS, size) for size in (IN, OUT))
    return Examples(*(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes))


SUPPORT, QUERY = examples(1), examples(2)


def query_loss(adaptation: GradientAdaptation) -> Tensor:
    state = adaptation.adapt(adaptation.prior(NUM_TASKS), SUPPORT)
    return adaptation.losses(state, QUERY).mean()


def looped_loss(adaptation: GradientAdaptation) -> Tensor:
    """The same, task by task with autograd alone."""
    params: Params = dict(adaptation.net.named_parameters())
    total = torch.zeros((), dtype=torch.float64)
    for task in range(NUM_TASKS):
        own = params
        for step in range(adaptation.num_steps):
            error = squared_error(functional_call(adaptation.net, own, (SUPPORT.x[task],)), SUPPORT.y[task]).mean()
            tensors = [own[name] for name in adaptation.adapted]
            gradients = torch.autograd.grad(error, tensors, create_graph=not adaptation.first_order)
            own = own | {
                name: own[name] - adaptation.step_sizes(name, step) * gradient
                for name, gradient in zip(adaptation.adapted, gradients, strict=True)
            }
        total = total + squared_error(functional_call(adaptation.net, own, (QUERY.x[task],)), QUERY.y[task]).mean()
    return total / NUM_TASKS


def meta_gradient(loss: Tensor, adaptation: GradientAdaptation) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(adaptation.parameters())))


@pytest.mark.parametrize(
    ("net", "batching"),
    [(net, batching) for net in NETS for batching in BATCHINGS if batching != "batched" or takes_tasks(NETS[net]())],
)
@pytest.mark.parametrize("first_order", [False, True])
def test_meta_gradients_of_every_net_equal_a_loop_over_tasks(net, batching, first_order):
    learner = adaptation(net, batching=batching, first_order=first_order, num_steps=3, chunk_size=2)
    loss, looped = query_loss(learner), looped_loss(learner)
    torch.testing.assert_close(loss, looped)
    torch.testing.assert_close(meta_gradient(loss, learner), meta_gradient(looped, learner))


@pytest.mark.parametrize(("part", "kind"), list(itertools.product(PARTS, STEP_SIZES)))
@pytest.mark.parametrize("first_order", [False, True])
def test_meta_gradients_of_every_option_equal_a_loop_over_tasks(part, kind, first_order):
    learner = adaptation("layer_norm", part, kind, first_order=first_order, num_steps=3)
    loss, looped = query_loss(learner), looped_loss(learner)
    torch.testing.assert_close(meta_gradient(loss, learner), meta_gradient(looped, learner))


def assert_finite_differences(learner: GradientAdaptation, epsilon: float = 1e-5, rtol: float = 1e-5) -> None:
    """The meta-gradient along random directions, one for each parameter."""
    generator = torch.Generator().manual_seed(3)
    for parameter, gradient in zip(learner.parameters(), meta_gradient(query_loss(learner), learner), strict=True):
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        losses = []
        for sign in (1, -1):
            parameter.data += sign * epsilon * direction
            losses.append(query_loss(learner).item())
            parameter.data -= sign * epsilon * direction
        difference = (losses[0] - losses[1]) / (2 * epsilon)
        assert (gradient * direction).sum().item() == pytest.approx(difference, rel=rtol, abs=1e-8)


@nets
def test_meta_gradients_of_every_net_equal_finite_differences(net):
    assert_finite_differences(adaptation(net, num_steps=2))


@pytest.mark.parametrize(("part", "kind"), list(itertools.product(PARTS, STEP_SIZES)))
def test_meta_gradients_of_every_option_equal_finite_differences(part, kind):
    assert_finite_differences(adaptation("perceptron", part, kind, num_steps=3))


def test_torchs_own_layer_norm_is_wrong_under_vmap_of_grad():
    """The trap that metarl.nets.mlp.LayerNorm is for; where torch has mended it, this test says so."""
    module = perceptron(lambda: nn.LayerNorm(6))
    loss = supervised_loss(module, squared_error)
    with pytest.raises(ValueError, match="batching is 'batched', and not all modules of Sequential take a task axis"):
        GradientAdaptation(module, loss, FixedStepSizes(0.2))
    learner = GradientAdaptation(module, loss, FixedStepSizes(0.2), batching="vmap")
    loss, looped = query_loss(learner), looped_loss(learner)
    torch.testing.assert_close(loss, looped)
    ours, theirs = (torch.cat([g.flatten() for g in meta_gradient(v, learner)]) for v in (loss, looped))
    assert (ours - theirs).norm() > 1e-4 * theirs.norm()


def test_tanh_is_tanh_in_value_slope_and_curvature():
    x = torch.linspace(-12, 12, 2001)
    ours: Callable[[Tensor], Tensor] = Tanh()
    theirs: Callable[[Tensor], Tensor] = torch.tanh
    for _ in range(3):
        torch.testing.assert_close(torch.vmap(ours)(x), torch.vmap(theirs)(x), atol=2e-6, rtol=0)
        ours, theirs = torch.func.grad(ours), torch.func.grad(theirs)


def test_normalisation_equals_torchs_in_value():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, 4, 4, generator=generator)
    rows = images[:, 0, 0]
    torch.testing.assert_close(LayerNorm(4)(rows), nn.LayerNorm(4)(rows))


def test_meta_sgd_with_equal_step_sizes_is_maml():
    maml = adaptation(num_steps=2)
    sizes = PerParameterStepSizes(dict(maml.net.named_parameters()), 0.2, torch.Generator())
    meta_sgd = GradientAdaptation(maml.net, maml.loss, sizes, num_steps=2)
    losses = [query_loss(learner) for learner in (maml, meta_sgd)]
    torch.testing.assert_close(*losses)
    gradients = [torch.autograd.grad(loss, list(maml.net.parameters())) for loss in losses]
    torch.testing.assert_close(*gradients)


def test_first_order_is_second_order_without_the_hessian():
    """d query / d theta = (I - lr H) d query / d phi; without H it is the gradient at the adapted parameters."""
    learner = adaptation(num_steps=1)
    learner.first_order = True
    params = learner.prior(NUM_TASKS)
    adapted = {name: value.detach().requires_grad_() for name, value in learner.adapt(params, SUPPORT).items()}
    at_adapted = torch.autograd.grad(learner.losses(adapted, QUERY).mean(), list(adapted.values()))
    first = meta_gradient(query_loss(learner), learner)
    torch.testing.assert_close(first, [gradient.sum(0) for gradient in at_adapted])

    learner.first_order = False
    flat = torch.cat([p.detach().flatten() for p in learner.net.parameters()])
    sizes = [p.numel() for p in learner.net.parameters()]

    def loss_at(vector: Tensor, task: int) -> Tensor:
        parts = zip(learner.net.named_parameters(), vector.split(sizes), strict=True)
        return learner.loss({name: part.view_as(p) for (name, p), part in parts}, SUPPORT[task])

    dropped = torch.zeros_like(flat)
    for task in range(NUM_TASKS):
        hessian = torch.autograd.functional.hessian(lambda vector, task=task: loss_at(vector, task), flat)
        dropped += 0.2 * torch.as_tensor(hessian) @ torch.cat([gradient[task].flatten() for gradient in at_adapted])
    second = torch.cat([gradient.flatten() for gradient in meta_gradient(query_loss(learner), learner)])
    torch.testing.assert_close(second, torch.cat([gradient.flatten() for gradient in first]) - dropped)


def test_first_order_records_no_inner_graph():
    learner = adaptation(first_order=True)
    with torch.no_grad():
        assert not any(value.requires_grad for value in learner.gradient(learner.prior(2), SUPPORT[:2]).values())


class Point(nn.Module):
    """Parameters that are no layer's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64))


def test_implicit_gradients_of_a_quadratic_are_the_closed_form():
    """loss = p A p / 2 - b p; phi = (A + lambda)^-1 (b + lambda theta), and its derivative lambda (A + lambda)^-1."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(NUM_TASKS, 3, 3, generator=generator, dtype=torch.float64)
    curvature, b = root @ root.mT + torch.eye(3, dtype=torch.float64), root[:, 0]
    target, strength, net = root[:, 1], 2.0, Point()

    def loss(params: Params, data: tuple[Tensor, Tensor]) -> Tensor:
        matrix, slope = data
        return params["place"] @ matrix @ params["place"] / 2 - slope @ params["place"]

    settings = {"num_steps": 400, "num_cg_steps": 3, "batching": "vmap"}
    learner = ImplicitAdaptation(net, loss, FixedStepSizes(0.05), strength=strength, **settings)
    phi = learner.adapt(learner.prior(NUM_TASKS), (curvature, b))["place"]
    system = curvature + strength * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(phi, torch.linalg.solve(system, b + strength * net.place))
    (gradient,) = torch.autograd.grad((phi - target).square().sum() / 2, [net.place])
    torch.testing.assert_close(gradient, strength * torch.linalg.solve(system, phi - target).sum(0))


@pytest.mark.parametrize("batching", BATCHINGS)
def test_implicit_gradients_are_those_of_unrolling_to_the_optimum(batching):
    """Against backpropagation through as many steps of the same pull that nothing moves any more."""
    module = perceptron()
    loss, strength = supervised_loss(module, squared_error), 3.0
    settings = {"strength": strength, "num_steps": 150, "num_cg_steps": 40, "batching": batching}
    learner = ImplicitAdaptation(module, loss, FixedStepSizes(0.15), **settings)
    start = learner.prior(NUM_TASKS)
    state = start
    for _ in range(150):
        gradient = learner.gradient(state, SUPPORT)
        state = {k: p - 0.15 * (gradient[k] + strength * (p - start[k])) for k, p in state.items()}
    unrolled = meta_gradient(learner.losses(state, QUERY).mean(), learner)
    torch.testing.assert_close(meta_gradient(query_loss(learner), learner), unrolled, rtol=1e-6, atol=1e-9)


def test_an_implicit_learners_step_is_cut_to_its_longest_move():
    module = perceptron()
    loss, settings = supervised_loss(module, squared_error), {"strength": 1.0, "num_steps": 1}
    free, cut = (ImplicitAdaptation(module, loss, FixedStepSizes(0.2), max_move=m, **settings) for m in (None, 0.05))
    moves = []
    with torch.no_grad():
        start = free.prior(NUM_TASKS)
        for learner in (free, cut):
            state = learner.adapt(start, SUPPORT)
            moves.append(torch.cat([(state[name] - start[name]).flatten(1) for name in state], 1))
    assert bool((moves[0].norm(dim=1) > 0.05).all())
    torch.testing.assert_close(moves[1], 0.05 * moves[0] / moves[0].norm(dim=1, keepdim=True))


def test_conjugate_gradient_solves_each_task_on_its_own_and_stays_at_zero():
    matrix = torch.diag_embed(torch.tensor([[1.0, 2.0], [5.0, 0.5], [3.0, 1.0]], dtype=torch.float64))
    right = torch.tensor([[1.0, 1.0], [5.0, 2.0], [0.0, 0.0]], dtype=torch.float64)
    solution = conjugate_gradient(lambda v: {"x": (matrix @ v["x"][..., None])[..., 0]}, {"x": right}, 2)["x"]
    torch.testing.assert_close(solution, torch.tensor([[1.0, 0.5], [1.0, 4.0], [0.0, 0.0]], dtype=torch.float64))


def test_later_steps_use_the_last_step_size():
    sizes = FixedStepSizes((0.1, 0.05))
    assert [sizes("any", step) for step in range(4)] == [0.1, 0.05, 0.05, 0.05]


def test_learned_step_sizes_are_one_a_layer_and_step_or_one_a_number():
    module = mlp([1, 40, 1], activation="relu", output_gain=1.0, generator=torch.Generator())
    params = dict(module.named_parameters())
    assert [value.shape for value in PerStepStepSizes(params, 0.1, 5).parameters()] == [(5,), (5,)]
    sizes = PerParameterStepSizes(params, (0.005, 0.1), torch.Generator().manual_seed(0))
    for name, value in params.items():
        assert sizes(name, 0).shape == value.shape
        assert bool(((sizes(name, 0) >= 0.005) & (sizes(name, 0) <= 0.1)).all())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 0}, "num_steps is 0; must be at least 1"),
        ({"chunk_size": 0}, "chunk_size is 0; must be at least 1"),
        ({"batching": "map"}, "batching is 'map'; must be one of batched, vmap, chunks, loop"),
        ({"adapted": ["2.wieght"]}, "adapted has '2.wieght'; must be among 0.weight"),
        ({"adapted": []}, "adapted is empty"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    module = perceptron()
    with pytest.raises(ValueError, match=message):
        GradientAdaptation(module, supervised_loss(module, squared_error), FixedStepSizes(0.1), **settings)


def test_a_loss_over_all_tasks_is_refused():
    module = perceptron()
    learner = GradientAdaptation(
        module, supervised_loss(module, nn.functional.mse_loss), FixedStepSizes(0.1), batching="batched"
    )
    with pytest.raises(ValueError, match=r"loss has shape \(\); 'batched' needs one number per task"):
        learner.adapt(learner.prior(NUM_TASKS), SUPPORT)


def test_parts_of_a_net():
    module = perceptron()
    assert parameters_of(module, "head") == ["2.weight", "2.bias"]
    assert parameters_of(module, "body") == ["0.weight", "0.bias"]
    assert parameters_of(module, "bias") == ["0.bias", "2.bias"]
    with pytest.raises(ValueError, match="part is 'bias', and Linear has no such parameters"):
        parameters_of(nn.Linear(2, 2, bias=False), "bias")
