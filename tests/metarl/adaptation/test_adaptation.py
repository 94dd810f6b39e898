"""The laws of adaptation, over every way to adapt."""

from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from metarl.adaptation.context import Aggregation, ContextAdaptation, factor_size
from metarl.adaptation.external_memory import ExternalMemoryConfig
from metarl.adaptation.gradient import GradientAdaptation, supervised_loss
from metarl.adaptation.recurrent import RecurrentConfig
from metarl.adaptation.sequence import MemoryConfig, SequenceAdaptation
from metarl.adaptation.snail import SnailConfig
from metarl.adaptation.splagger import SplAggerConfig
from metarl.adaptation.step_sizes import FixedStepSizes
from metarl.adaptation.transformer import PositionKind, TransformerConfig
from metarl.adaptation.window import WindowConfig
from metarl.fewshot.methods.imaml import ImplicitAdaptation
from metarl.nets.mlp import linear, mlp
from metarl.records import Examples

NUM_TASKS, NUM_ITEMS, ITEM, QUERY, OUT = 4, 6, 3, 2, 5


def sequence(config: MemoryConfig, *, asked: bool = False) -> SequenceAdaptation:
    """A memory whose head alone sees the query, or one that is asked it."""
    generator = torch.Generator().manual_seed(0)
    encoder = mlp([ITEM, 7], activation="tanh", generator=generator)
    memory = config.make(7, 8, generator=generator)
    query = mlp([QUERY, 7], activation="tanh", generator=generator) if asked else None
    adaptation = SequenceAdaptation(encoder, memory, Concatenated(memory.hidden_size, generator), query=query)
    for parameter in adaptation.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
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
    encoder = mlp([ITEM, 7, factor_size(4, aggregation)], activation="tanh", output_gain=1.0, generator=generator)
    return ContextAdaptation(encoder, Concatenated(4, generator), latent_size=4, aggregation=aggregation).double()


def gradient(**settings) -> GradientAdaptation:
    """On items whose first entries are a query's input and the last one what is asked for."""
    net = mlp([QUERY, 8, OUT], activation="tanh", output_gain=1.0, generator=torch.Generator().manual_seed(0)).double()
    loss = supervised_loss(net, lambda prediction, y: (prediction - y).square().mean(-1))
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
MEMORIES: dict[str, MemoryConfig] = {
    "gru": RecurrentConfig("gru"),
    "lstm": RecurrentConfig("lstm"),
    "snail": SnailConfig(filters=(3, 2), key_sizes=(4, 3), value_sizes=(2, 3), length=7),
    "snail_from_attention": SnailConfig(filters=(3,), key_sizes=(4, 3), value_sizes=(2, 3), length=2),
    **{
        f"transformer_{kind}": TransformerConfig(num_heads=2, positions=kind, max_items=NUM_ITEMS + 1)
        for kind in get_args(PositionKind)
    },
    "external": ExternalMemoryConfig(num_slots=5, slot_size=3, num_heads=2),
    "window": WindowConfig(channels=8),
    "splagger": SplAggerConfig(),
    "splagger_lstm": SplAggerConfig("lstm", aggregate_fraction=0.25),
}
ASKED = ("gru", "lstm", "snail", "transformer_learned", "transformer_rotary", "external", "window", "splagger")
SEQUENCES = {
    **{name: sequence(config) for name, config in MEMORIES.items()},
    **{f"{name}_asked": sequence(MEMORIES[name], asked=True) for name in ASKED},
}

everything = pytest.mark.parametrize(
    "adaptation",
    [
        *SEQUENCES.values(),
        *BELIEFS,
        gradient(num_steps=2),
        gradient(num_steps=2, batching="vmap"),
        gradient(num_steps=2, batching="loop"),
        gradient(num_steps=2, batching="chunks", chunk_size=3),
        gradient(first_order=True),
        gradient(adapted=["2.weight", "2.bias"]),
        gradient(num_steps=2, strength=1.0),
    ],
    ids=[*SEQUENCES, *AGGREGATIONS, "gradient", "vmap", "loop", "chunks", "first_order", "head", "implicit"],
)
unordered = pytest.mark.parametrize(
    "adaptation",
    [gradient(num_steps=3), gradient(num_steps=3, strength=1.0), *BELIEFS],
    ids=["gradient", "implicit", *AGGREGATIONS],
)
absorbing = pytest.mark.parametrize("adaptation", [*SEQUENCES.values(), *BELIEFS], ids=[*SEQUENCES, *AGGREGATIONS])
sequences = pytest.mark.parametrize("adaptation", SEQUENCES.values(), ids=SEQUENCES)


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


@everything
def test_queries_do_not_see_each_other(adaptation):
    context, x = data()
    state = adaptation.adapt(adaptation.prior(NUM_TASKS), context)
    each = [adaptation.predict(state, query) for query in x.split(1, 1)]
    torch.testing.assert_close(adaptation.predict(state, x), torch.cat(each, 1))


@sequences
@pytest.mark.parametrize("num_before", [0, 1, 4], ids=lambda number: f"after {number}")
def test_unrolling_in_one_call_is_absorbing_item_by_item(adaptation, num_before):
    context, _ = data()
    state = adaptation.adapt(adaptation.prior(NUM_TASKS), context[:, :num_before])
    unrolled = adaptation.unroll(state, context[:, num_before:].transpose(0, 1))
    for item, read in zip(context[:, num_before:].unbind(1), unrolled, strict=True):
        state = adaptation.absorb(state, item)
        torch.testing.assert_close(read, state.hidden)


@sequences
def test_two_ways_on_from_one_state_are_each_as_if_alone(adaptation):
    context, x = data()
    start = adaptation.adapt(adaptation.prior(NUM_TASKS), context[:, :3])
    ways = [context[:, 3:], context[:, 3:].flip(1)]
    states = [start, start]
    for items in zip(*(way.unbind(1) for way in ways), strict=True):  # in turn
        states = [adaptation.absorb(state, item) for state, item in zip(states, items, strict=True)]
    for way, state in zip(ways, states, strict=True):
        whole = adaptation.adapt(adaptation.prior(NUM_TASKS), torch.cat([context[:, :3], way], 1))
        torch.testing.assert_close(adaptation.predict(state, x), adaptation.predict(whole, x))
    assert not torch.allclose(states[0].hidden, states[1].hidden)


@sequences
def test_no_verb_writes_into_a_state(adaptation):
    context, x = data()
    state = adaptation.adapt(adaptation.prior(NUM_TASKS), context[:, :3])
    before = state.map(torch.clone)
    adaptation.adapt(state, context[:, 3:])
    adaptation.absorb(state, context[:, 3])
    adaptation.predict(state, x)
    for ours, theirs in zip(tree_leaves(state), tree_leaves(before), strict=True):
        assert torch.equal(ours, theirs)


@sequences
def test_rows_of_a_state_go_on_as_they_would_together(adaptation):
    """What an agent does that keeps some rows, or copies a row."""
    context, x = data()
    state = adaptation.adapt(adaptation.prior(NUM_TASKS), context[:, :3])
    rows = torch.tensor([2, 0])
    together = adaptation.predict(adaptation.adapt(state, context[:, 3:]), x)[rows]
    torch.testing.assert_close(adaptation.predict(adaptation.adapt(state[rows], context[rows, 3:]), x[rows]), together)


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


@sequences
def test_no_items_leave_the_state_as_it_is(adaptation):
    context, x = data()
    state = adaptation.prior(NUM_TASKS)
    assert torch.equal(adaptation.predict(adaptation.adapt(state, context[:, :0]), x), adaptation.predict(state, x))
