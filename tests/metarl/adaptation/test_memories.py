"""Memories of sequence models against plain loops over the items, and hand numbers."""

import cmath
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.adaptation.attention import CausalStack
from metarl.adaptation.external_memory import (
    ExternalMemory,
    ExternalMemoryConfig,
    ExternalMemoryState,
    similarity,
    write,
)
from metarl.adaptation.recurrent import RecurrentConfig
from metarl.adaptation.snail import Convolutions, Lookup, SnailConfig
from metarl.adaptation.splagger import SplAggerConfig
from metarl.adaptation.transformer import LearnedPositions, PositionKind, TransformerConfig, TransformerLayer
from metarl.adaptation.window import WindowConfig

INPUT = 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(config: Any, hidden_size: int | None) -> Any:
    memory = config.make(INPUT, hidden_size, generator=generator()).double()
    for parameter in memory.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator(1))
    return memory.requires_grad_(False)


def items(number: int) -> Tensor:
    return torch.randn(number, 2, INPUT, generator=generator(2), dtype=torch.float64)


def row_by_row(
    memory: CausalStack, x: Tensor, block: Callable[[torch.nn.Module, list[Tensor]], list[Tensor]]
) -> Tensor:
    """What a stack gives for x [T, B, in], each row and item as a vector of its own: [T, B, H]."""
    rows = []
    for row in x.unbind(1):
        stream = [memory.enter(item) for item in row]
        for each in memory.blocks:
            stream = block(each, stream)
        rows.append(torch.stack([memory.leave(item) for item in stream]))
    return torch.stack(rows, 1)


def looked_up(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """One query among keys, one product after another."""
    weights = [math.exp(float(query @ key) / math.sqrt(len(query))) for key in keys]
    return sum((weight / sum(weights) * value for weight, value in zip(weights, values, strict=True)), torch.zeros(()))


def snail_block(block: torch.nn.Module, stream: list[Tensor]) -> list[Tensor]:
    if isinstance(block, Lookup):
        parts = [block.project(item).split(block.sizes) for item in stream]
        return [
            torch.cat([item, looked_up(parts[t][0], [p[1] for p in parts[: t + 1]], [p[2] for p in parts[: t + 1]])])
            for t, item in enumerate(stream)
        ]
    assert isinstance(block, Convolutions)
    for layer, (here, before) in enumerate(zip(block.here, block.before, strict=True)):
        longer = []
        for t, item in enumerate(stream):
            total = here(item)
            if t >= 2**layer:
                total = total + before(stream[t - 2**layer])
            value, gate = total[: block.filters], total[block.filters :]
            longer.append(torch.cat([item, value.tanh() / (1 + (-gate).exp())]))
        stream = longer
    return stream


@pytest.mark.parametrize(
    ("config", "hidden_size"),
    [
        (SnailConfig(filters=(3, 2), key_sizes=(4, 3), value_sizes=(2, 3), length=7), None),
        (SnailConfig(filters=(3,), key_sizes=(4, 3), value_sizes=(2, 3), length=16), 5),
        (SnailConfig(filters=(3, 2), key_sizes=(4,), value_sizes=(2,), length=2), None),
    ],
    ids=["both", "attention first", "convolutions first and last"],
)
def test_a_snail_is_a_loop_over_items(config, hidden_size):
    memory, x = made(config, hidden_size), items(10)
    read, _ = memory.read(memory.prior(2), x)
    assert read.shape == (10, 2, memory.hidden_size)
    torch.testing.assert_close(read, row_by_row(memory, x, snail_block))


def test_blocks_of_a_snail_alternate_and_those_of_which_there_are_more_come_first():
    def kinds(**settings: Any) -> list[type]:
        sizes: dict[str, Any] = {"filters": (1, 1), "key_sizes": (1, 1), "value_sizes": (1, 1)}
        config = SnailConfig(**sizes | settings)
        return [type(block) for block in config.make(INPUT, generator=generator()).blocks]

    assert kinds() == [Convolutions, Lookup, Convolutions, Lookup]
    assert kinds(filters=(1,)) == [Lookup, Convolutions, Lookup]
    assert kinds(key_sizes=(1,), value_sizes=(1,)) == [Convolutions, Lookup, Convolutions]


@pytest.mark.parametrize(("length", "layers"), [(2, 1), (3, 2), (4, 2), (5, 3), (60, 6), (64, 6), (65, 7)])
def test_convolutions_reach_back_over_the_length_that_is_asked_for(length, layers):
    assert SnailConfig(length=length).num_dilations == layers
    block = Convolutions(INPUT, 2, layers, generator=generator()).double()
    x = items(2**layers + 1).transpose(0, 1).requires_grad_()
    block(x, block.prior(2), alone=False)[0][:, -1].sum().backward()
    assert x.grad is not None
    reached = x.grad.abs().amax((0, 2)) > 0
    assert reached.tolist() == [False] + [True] * 2**layers


def by_strides(memory: CausalStack, window: Tensor) -> Tensor:
    """RMA's convolutions, with their strides, over the embeddings [B, channels, items] of one window: [B, H]."""
    for layer, stride in zip(memory.blocks[0].layers, (4, 1, 1), strict=True):  # type: ignore[arg-type]
        window = torch.nn.functional.conv1d(window, layer.weight, layer.bias, stride).relu()
    return memory.leave(window.mT.flatten(1))


@pytest.mark.parametrize(("num_items", "used"), [(50, 48), (40, 40), (53, 52)])
def test_a_window_is_strided_convolutions_over_the_latest_items(num_items, used):
    memory, x = made(WindowConfig(num_items=num_items, channels=4), 5), items(60)
    read, _ = memory.read(memory.prior(2), x)
    before = torch.zeros(used - 1, 2, 4, dtype=x.dtype)
    embedded = torch.cat([before, memory.enter(x)]).permute(1, 2, 0)
    expected = [by_strides(memory, embedded[..., t : t + used]) for t in range(60)]
    torch.testing.assert_close(read, torch.stack(expected))


def test_the_aggregate_of_a_splagger_is_the_largest_value_so_far_in_any_order():
    memory, x = made(SplAggerConfig(), 6), items(9)
    read, state = memory.read(memory.prior(2), x)
    for row, values in enumerate(memory.features(x).unbind(1)):
        for t in range(9):
            torch.testing.assert_close(read[t, row, 3:], values[: t + 1].amax(0).relu())  # it starts at zero
    turned_round = memory.read(memory.prior(2), x.flip(0))[1]
    torch.testing.assert_close(turned_round.hidden[:, 3:], state.hidden[:, 3:])
    assert not torch.allclose(turned_round.hidden[:, :3], state.hidden[:, :3])  # the recurrent part tells the order


def turned(x: Tensor, position: int) -> Tensor:
    """Rotary: the two halves of a vector as real and imaginary parts, turned by position times frequency."""
    half = len(x) // 2
    turns = [cmath.exp(1j * position * 10_000 ** (-2 * k / len(x))) for k in range(half)]
    points = [complex(x[k], x[half + k]) * turn for k, turn in enumerate(turns)]
    return torch.tensor([p.real for p in points] + [p.imag for p in points], dtype=x.dtype)


def plus_sinusoids(item: Tensor, position: int) -> Tensor:
    angles = [position * 10_000 ** (-2 * k / len(item)) for k in range(len(item) // 2)]
    return item + torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles], dtype=item.dtype)


def transformer_block(block: torch.nn.Module, stream: list[Tensor]) -> list[Tensor]:
    if isinstance(block, LearnedPositions):
        return [item + block.table[t] for t, item in enumerate(stream)]
    if not isinstance(block, TransformerLayer):
        return [plus_sinusoids(item, t) for t, item in enumerate(stream)]
    parts = [block.project(block.attention_norm(item)).chunk(3) for item in stream]
    longer = []
    for t, item in enumerate(stream):
        found = []
        for head in range(block.num_heads):
            size = len(item) // block.num_heads
            mine = slice(head * size, (head + 1) * size)
            queries, keys, values = ([part[k][mine] for part in parts[: t + 1]] for k in range(3))
            if block.rotary:
                queries = [turned(query, position) for position, query in enumerate(queries)]
                keys = [turned(key, position) for position, key in enumerate(keys)]
            found.append(looked_up(queries[t], keys, values))
        item = item + block.attention_output(torch.cat(found))
        longer.append(item + block.feedforward(item))
    return longer


@pytest.mark.parametrize("positions", ["none", "learned", "sinusoidal", "rotary"])
def test_a_transformer_is_a_loop_over_items(positions: PositionKind):
    memory, x = made(TransformerConfig(num_heads=2, positions=positions, max_items=9), 8), items(9)
    read, _ = memory.read(memory.prior(2), x)
    torch.testing.assert_close(read, row_by_row(memory, x, transformer_block))


@pytest.mark.parametrize("positions", ["none", "sinusoidal", "rotary"])
def test_items_read_apart_are_questions_in_between(positions: PositionKind):
    memory, x = made(TransformerConfig(num_heads=2, positions=positions), 8), items(6)
    alone = torch.tensor([True, False, True, True, False, True])
    read, state = memory.read_apart(memory.prior(2), x.transpose(0, 1), alone)
    by_hand = memory.prior(2)
    for t, is_question in enumerate(alone.tolist()):
        if is_question:
            torch.testing.assert_close(read[:, t], memory.ask(by_hand, x[t].unsqueeze(1))[:, 0])
        else:
            by_hand = memory.step(by_hand, x[t])
            torch.testing.assert_close(read[:, t], by_hand.hidden)
    later = (memory.step(each, x[0]).hidden for each in (state, by_hand))
    torch.testing.assert_close(*later)


def test_items_beyond_learned_positions_are_refused():
    memory, x = made(TransformerConfig(num_heads=2, positions="learned", max_items=4), 8), items(5)
    message = "max_items is 4; must be at least 5, the number of this item, or positions other than 'learned'"
    with pytest.raises(ValueError, match=message):
        memory.read(memory.prior(2), x)
    state = memory.read(memory.prior(2), x[:4])[1]
    with pytest.raises(ValueError, match=message):
        memory.step(state, x[4])
    with pytest.raises(ValueError, match=message):
        memory.ask(state, x[4:].transpose(0, 1))


def test_a_key_is_written_to_the_least_used_slot_and_to_those_like_the_key_before():
    """Three slots of two numbers, one head. Slot 1 has been used the least: it is erased and gets three quarters."""
    state = ExternalMemoryState(
        hidden=torch.zeros(1, 0),
        cell=torch.zeros(1, 0),
        slots=torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]]),
        usage=torch.tensor([[0.5, 0.2, 0.9]]),
        read_weights=torch.tensor([[[0.6, 0.3, 0.1]]]),
    )
    slots, written = write(state, key=torch.tensor([[[1.0, -1.0]]]), gate=torch.tensor([[0.25]]))
    # .25 (.6, .3, .1) + .75 (0, 1, 0)
    torch.testing.assert_close(written, torch.tensor([[[0.15, 0.825, 0.025]]]))
    torch.testing.assert_close(slots, torch.tensor([[[1.15, -0.15], [0.825, -0.825], [3.025, 3.975]]]))


def test_each_head_has_a_least_used_slot_of_its_own_the_first_of_equals():
    state = ExternalMemoryState(
        hidden=torch.zeros(1, 0),
        cell=torch.zeros(1, 0),
        slots=torch.ones(1, 4, 1),
        usage=torch.tensor([[0.3, 0.1, 0.0, 0.1]]),
        read_weights=torch.zeros(1, 2, 4),
    )
    slots, _ = write(state, torch.tensor([[[5.0], [7.0]]]), torch.zeros(1, 2))
    assert slots.flatten().tolist() == [1.0, 7.0, 5.0, 1.0]


def test_slots_are_like_a_key_by_their_angle_to_it_and_not_by_their_length():
    slots = torch.tensor([[[2.0, 0.0], [0.0, 3.0], [0.0, 0.0]]])
    weight = similarity(torch.tensor([[[0.5, 0.0]]]), slots, torch.tensor([[math.log(8.0)]]))
    torch.testing.assert_close(weight, torch.tensor([[[0.8, 0.1, 0.1]]]), rtol=0, atol=1e-3)


def test_an_external_memory_is_its_formulas_step_by_step():
    config = ExternalMemoryConfig(num_slots=4, slot_size=2, num_heads=2, usage_decay=0.99)
    memory, x = made(config, 5), items(6)
    assert isinstance(memory, ExternalMemory)
    read, _ = memory.read(memory.prior(2), x)
    for row in range(2):
        torch.testing.assert_close(read[:, row], by_hand(memory, x[:, row]))


def shares(key: Tensor, slots: list[Tensor], sharp: Tensor) -> list[Tensor]:
    """How like the key each slot is, by the cosine of their angle; of sum one."""
    lengths = [((key @ key + 1e-4) * (slot @ slot + 1e-4)).sqrt() for slot in slots]
    alike = [(sharp * (key @ slot / length)).exp() for slot, length in zip(slots, lengths, strict=True)]
    return [one / sum(alike) for one in alike]


def by_hand(memory: ExternalMemory, x: Tensor) -> Tensor:
    """One row, slot by slot and head by head: what is read after each of the items x [T, in], [T, H]."""
    heads, size, num_slots = memory.config.num_heads, memory.config.slot_size, memory.config.num_slots
    hidden, cell = memory.initial_hidden, memory.initial_cell
    found = [x.new_zeros(size) for _ in range(heads)]
    slots, usage = [x.new_zeros(size) for _ in range(num_slots)], [0.0] * num_slots
    before = [[x.new_zeros(())] * num_slots for _ in range(heads)]
    reads = []
    for item in x:
        controller = memory.controller
        gates = controller.weight_ih @ torch.cat([item, *found]) + controller.weight_hh @ hidden
        gates = gates + controller.bias_ih + controller.bias_hh
        take, keep, new, give = gates.chunk(4)
        cell = keep.sigmoid() * cell + take.sigmoid() * new.tanh()
        hidden = give.sigmoid() * cell.tanh()
        keys = memory.key(hidden).tanh().split(size)
        sharp = [1 + (1 + value.exp()).log() for value in memory.sharpness(hidden)]
        least = sorted(range(num_slots), key=lambda slot: usage[slot])[:heads]
        usage = [0.99 * used for used in usage]
        for head in range(heads):
            share = shares(keys[head], slots, sharp[head])
            found[head] = sum((w * slot for w, slot in zip(share, slots, strict=True)), x.new_zeros(size))
            usage = [used + float(weight) for used, weight in zip(usage, share, strict=True)]
        for slot in least:
            slots[slot] = x.new_zeros(size)
        for head in range(heads):
            gate = memory.gate(hidden)[head].sigmoid()
            for slot in range(num_slots):
                written = gate * before[head][slot] + (1 - gate) * (1.0 if slot == least[head] else 0.0)
                slots[slot] = slots[slot] + written * keys[head]
                usage[slot] += float(written)
        before = [shares(keys[head], slots, sharp[head]) for head in range(heads)]
        reads.append(torch.cat([hidden, *found]))
    return torch.stack(reads)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_longer_span_keeps_the_first_item_longer(cell):
    """How far a change of the first item still moves the memory after a hundred others, before any training."""
    x = items(100)[:, :1]
    changed = torch.cat([x[:1] + 1, x[1:]])
    kept = []
    for span in (None, 200):
        memory = made(RecurrentConfig(cell, span), 8)
        ends = [memory.read(memory.prior(1), each)[0][-1] for each in (x, changed)]
        kept.append((ends[0] - ends[1]).norm())
    assert kept[1] > 100 * kept[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RecurrentConfig(span=1), "span is 1; must be at least 2"),
        (lambda: RecurrentConfig("rnn"), "cell is 'rnn'; must be one of gru, lstm"),  # type: ignore[arg-type]
        (lambda: SplAggerConfig("rnn"), "cell is 'rnn'; must be one of gru, lstm"),  # type: ignore[arg-type]
        (lambda: SplAggerConfig(aggregate_fraction=1.0), "aggregate_fraction is 1.0; must be between 0 and 1"),
        (lambda: SplAggerConfig().sizes(1), "hidden_size is 1; must leave a unit to either part"),
        (lambda: WindowConfig(num_items=39), "num_items is 39; must be at least 40"),
        (lambda: SnailConfig(filters=()), r"filters is \(\); must have one or more entries"),
        (
            lambda: SnailConfig(key_sizes=(4,)),
            r"key_sizes is \(4,\) and value_sizes \(32, 32\); must have equal lengths",
        ),
        (
            lambda: SnailConfig(filters=(1,) * 4),
            r"filters is \(1, 1, 1, 1\) and key_sizes \(32, 32\); must differ in length by at most 1",
        ),
        (lambda: SnailConfig(length=1), "length is 1; must be at least 2"),
        (lambda: TransformerConfig(num_layers=0), "num_layers is 0; must be at least 1"),
        (
            lambda: TransformerConfig(positions="sine"),  # type: ignore[arg-type]
            "positions is 'sine'; must be one of none, learned, sinusoidal, rotary",
        ),
        (
            lambda: made(TransformerConfig(num_heads=4), 12),
            "hidden_size is 12; with 4 heads and positions 'rotary' it must be a multiple of 8",
        ),
        (lambda: made(TransformerConfig(num_heads=3, positions="sinusoidal"), 9), "it must be a multiple of 6"),
        (lambda: made(TransformerConfig(num_heads=4, positions="none"), 6), "it must be a multiple of 4"),
        (lambda: ExternalMemoryConfig(slot_size=0), "slot_size is 0; must be at least 1"),
        (lambda: ExternalMemoryConfig(num_slots=2), "num_heads is 4; must be at most num_slots, 2"),
        (lambda: ExternalMemoryConfig(usage_decay=1.0), r"usage_decay is 1.0; must lie in \[0, 1\)"),
    ],
)
def test_a_wrong_setting_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
