"""The laws of adaptation, over every way to adapt."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from metarl.adaptation.context import Aggregation, ContextAdaptation, vote_size
from metarl.adaptation.gradient import GradientAdaptation, supervised_loss
from metarl.adaptation.implicit import ImplicitAdaptation
from metarl.adaptation.sequence import RecurrentAdaptation
from metarl.adaptation.step_sizes import FixedStepSizes
from metarl.nets import linear, mlp
from metarl.records import Examples

NUM_TASKS, NUM_ITEMS, ITEM, QUERY, OUT = 4, 6, 3, 2, 5


def recurrent(cell: str, span: int | None = None) -> RecurrentAdaptation:
    generator = torch.Generator().manual_seed(0)
    head = linear(8 + QUERY, OUT, gain=1.0, generator=generator)
    adaptation = RecurrentAdaptation(
        mlp([ITEM, 7], activation="tanh", generator=generator),
        lambda hidden, x: head(torch.cat([hidden, x], -1)),
        input_size=7,
        hidden_size=8,
        cell=cell,  # type: ignore[arg-type]
        span=span,
        generator=generator,
    )
    for parameter in adaptation.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    head.double()
    return adaptation.double()


class Concatenated(torch.nn.Module):
    """A linear head on a latent and a query."""

    def __init__(self, latent_size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.net = linear(latent_size + QUERY, OUT, gain=1.0, generator=generator)

    def forward(self, latent: Tensor, x: Tensor) -> Tensor:
        return self.net(torch.cat([latent, x], -1))


def belief(aggregation: Aggregation) -> ContextAdaptation:
    generator = torch.Generator().manual_seed(0)
    encoder = mlp([ITEM, 7, vote_size(4, aggregation)], activation="tanh", output_gain=1.0, generator=generator)
    return ContextAdaptation(encoder, Concatenated(4, generator), latent_size=4, aggregation=aggregation).double()


def gradient(**settings) -> GradientAdaptation:
    """On items whose first entries are a query's input and the last one what is asked for."""
    net = mlp([QUERY, 8, OUT], activation="tanh", output_gain=1.0, generator=torch.Generator().manual_seed(0)).double()
    loss = supervised_loss(net, lambda prediction, y: (prediction - y).square().mean((-2, -1)))
    kind = ImplicitAdaptation if "strength" in settings else GradientAdaptation
    return kind(net, lambda params, items: loss(params, as_examples(items)), FixedStepSizes(0.1), **settings)


def as_examples(items: Tensor) -> Examples:
    return Examples(items[..., :QUERY], items[..., QUERY:])


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    context = torch.randn(NUM_TASKS, NUM_ITEMS, ITEM, generator=generator, dtype=torch.float64)
    return context, torch.randn(NUM_TASKS, 4, QUERY, generator=generator, dtype=torch.float64)


AGGREGATIONS = get_args(Aggregation)
BELIEFS = [belief(aggregation) for aggregation in AGGREGATIONS]

everything = pytest.mark.parametrize(
    "adaptation",
    [
        recurrent("gru"),
        recurrent("lstm"),
        *BELIEFS,
        gradient(num_steps=2),
        gradient(num_steps=2, batching="vmap"),
        gradient(num_steps=2, batching="loop"),
        gradient(num_steps=2, batching="chunks", chunk_size=3),
        gradient(first_order=True),
        gradient(adapted=["2.weight", "2.bias"]),
        gradient(num_steps=2, strength=1.0),
    ],
    ids=["gru", "lstm", *AGGREGATIONS, "gradient", "vmap", "loop", "chunks", "first_order", "head", "implicit"],
)
unordered = pytest.mark.parametrize(
    "adaptation",
    [gradient(num_steps=3), gradient(num_steps=3, strength=1.0), *BELIEFS],
    ids=["gradient", "implicit", *AGGREGATIONS],
)
absorbing = pytest.mark.parametrize(
    "adaptation", [recurrent("gru"), recurrent("lstm"), *BELIEFS], ids=["gru", "lstm", *AGGREGATIONS]
)
sequences = pytest.mark.parametrize("adaptation", [recurrent("gru"), recurrent("lstm")], ids=["gru", "lstm"])


@everything
def test_tasks_do_not_leak_into_each_other(adaptation):
    context, x = data()
    together = adaptation.predict(adaptation.adapt(adaptation.prior(NUM_TASKS), context), x)
    for task in range(NUM_TASKS):
        alone = adaptation.adapt(adaptation.prior(1), context[task : task + 1])
        torch.testing.assert_close(adaptation.predict(alone, x[task : task + 1])[0], together[task])


@everything
def test_the_old_state_is_left_as_it_was(adaptation):
    context, x = data()
    state = adaptation.adapt(adaptation.prior(NUM_TASKS), context[:, :2])
    before = adaptation.predict(state, x).clone()
    adaptation.adapt(state, context[:, 2:])
    assert torch.equal(adaptation.predict(state, x), before)


@absorbing
def test_absorbing_in_two_parts_is_absorbing_once(adaptation):
    context, x = data()
    state = adaptation.prior(NUM_TASKS)
    for part in (context[:, :2], context[:, 2:]):
        state = adaptation.adapt(state, part)
    once = adaptation.adapt(adaptation.prior(NUM_TASKS), context)
    torch.testing.assert_close(adaptation.predict(state, x), adaptation.predict(once, x))


@sequences
def test_unrolling_in_one_call_is_adapting_item_by_item(adaptation):
    context, _ = data()
    unrolled = adaptation.unroll(adaptation.prior(NUM_TASKS), context.transpose(0, 1))
    for items in range(1, NUM_ITEMS + 1):
        state = adaptation.adapt(adaptation.prior(NUM_TASKS), context[:, :items])
        torch.testing.assert_close(unrolled[items - 1], state.hidden)


@unordered
def test_the_order_of_the_data_is_irrelevant(adaptation):
    context, x = data()
    orders = (context, context.flip(1))
    ends = [adaptation.predict(adaptation.adapt(adaptation.prior(NUM_TASKS), items), x) for items in orders]
    torch.testing.assert_close(*ends)


@everything
def test_the_gradient_reaches_every_parameter(adaptation):
    context, x = data()
    state = adaptation.adapt(adaptation.prior(NUM_TASKS), context)
    outputs = adaptation.predict(state, x).square().sum()
    parameters = list(adaptation.parameters())
    gradients = torch.autograd.grad(outputs, parameters)
    assert all(bool(gradient.abs().sum() > 0) for gradient in gradients)


@sequences
def test_the_memory_and_the_gradient_reach_back_to_the_first_item(adaptation):
    context, x = data()
    context.requires_grad_()
    adaptation.predict(adaptation.adapt(adaptation.prior(NUM_TASKS), context), x).square().sum().backward()
    assert context.grad is not None
    assert (context.grad.abs().amax((0, 2)) > 0).all()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in adaptation.parameters())


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_longer_span_keeps_the_first_item_longer(cell):
    """How far a change of the first item still moves the memory after a hundred others, before any training."""
    generator = torch.Generator().manual_seed(2)
    context = torch.randn(1, 100, ITEM, generator=generator, dtype=torch.float64)
    changed = torch.cat([context[:, :1] + 1, context[:, 1:]], 1)
    kept = []
    for span in (None, 200):
        adaptation = recurrent(cell, span)
        ends = [adaptation.adapt(adaptation.prior(1), items).hidden for items in (context, changed)]
        kept.append((ends[0] - ends[1]).norm())
    assert kept[1] > 100 * kept[0]


def test_a_span_below_two_is_named():
    with pytest.raises(ValueError, match="span is 1; it must be at least 2"):
        recurrent("gru", 1)


def test_an_unknown_cell_is_named():
    with pytest.raises(ValueError, match="'rnn'; allowed are 'gru' and 'lstm'"):
        recurrent("rnn")
