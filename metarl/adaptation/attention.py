"""Memories that look back at every item read so far: causal blocks, each carrying its own past.

Vaswani et al. Attention is all you need (2017).

The past of a block holds what later items need from earlier ones (for attention, their keys and values). Reading item
by item therefore costs no more than one pass over all items, and gives the same result. The past is never modified in
place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from metarl.adaptation.sequence import SequenceState
from metarl.nets.initialisation import orthogonal_
from metarl.nets.mlp import Linear
from metarl.records import Record

Past = Any  # a tensor or a record, whose leading axis is B


class Block(Protocol):
    """One causal block of a stack; an nn.Module."""

    def prior(self, num_rows: int) -> Past:
        """The block's past before any item."""
        ...

    def __call__(self, x: Tensor, past: Past, *, alone: bool) -> tuple[Tensor, Past]:
        """The output [B, T, out] for x [B, T, in] given the past, and the past after x.

        alone: each of the T items is treated as the next one and does not see the others; the past is returned
        unchanged.
        """
        ...


@runtime_checkable
class Attends(Protocol):
    """An optional method of a `Block` with attention."""

    def weights(self, x: Tensor, past: Past) -> Tensor:
        """How much the next item x [B, 1, in] attends to each one before it, and to itself: [B, heads, items + 1]."""
        ...


@dataclass(frozen=True)
class StackState(SequenceState):
    """The state of a stack of blocks, per row."""

    pasts: tuple[Past, ...]  # one per block

    @property
    def max_items(self) -> int | None:
        """The places of the smallest window; None where there is none."""
        return min((past.keys.shape[2] for past in self.pasts if isinstance(past, Window)), default=None)


class CausalStack(nn.Module):
    """Causal blocks in sequence, between two layers that see one item at a time; a `SequenceMemory`."""

    def __init__(self, enter: nn.Module, blocks: Sequence[nn.Module], leave: nn.Module, *, hidden_size: int) -> None:
        super().__init__()
        self.enter, self.blocks, self.leave = enter, nn.ModuleList(blocks), leave
        self.hidden_size = hidden_size

    def prior(self, num_rows: int) -> StackState:
        """The memory before any item; its hidden state is zero."""
        like = next(self.parameters())
        return StackState(
            like.new_zeros(num_rows, self.hidden_size), tuple(block.prior(num_rows) for block in self._each)
        )

    def fixed_prior(self, num_rows: int, num_items: int) -> StackState:
        """The memory before any item, in a form whose shapes do not change; it keeps the last `num_items` items."""
        prior = self.prior(num_rows)
        return StackState(prior.hidden, tuple(of_fixed_shape(past, num_items) for past in prior.pasts))

    def step(self, state: StackState, x: Tensor) -> StackState:
        """The memory after one more item x [B, in]."""
        read, pasts = self._run(state, x.unsqueeze(1), alone=False)
        return StackState(read[:, 0], pasts)

    def read(self, state: StackState, x: Tensor) -> tuple[Tensor, StackState]:
        """The hidden states [T, B, H] after each of the items x [T, B, in], and the memory after the last."""
        read, pasts = self._run(state, x.transpose(0, 1), alone=False)
        return read.transpose(0, 1), StackState(read[:, -1], pasts)

    def ask(self, state: StackState, x: Tensor) -> Tensor:
        """The hidden states [B, Q, H] if each of x [B, Q, in], separately, came next."""
        return self._run(state, x, alone=True)[0]

    def read_apart(self, state: StackState, x: Tensor, alone: Tensor) -> tuple[Tensor, StackState]:
        """The outputs [B, T, H] for x [B, T, in], of which no later item sees those where `alone` [T] (bool) is true.

        It equals `read` of the others, and `ask` in between, in one pass; blocks must be a transformer's. Returns the
        memory after the last, too.
        """
        read, pasts = self._run(state, x, alone=alone)
        return read, StackState(read[:, -1], pasts)

    def attention(self, state: StackState, x: Tensor) -> Tensor | None:
        """How much one more item x [B, in] attends to each item before it, and to itself: [B, items + 1].

        A mean over blocks and heads, whose sum over items is one; None without attention.
        """
        x, found = self.enter(x.unsqueeze(1)), []
        for block, past in zip(self._each, state.pasts, strict=True):
            if isinstance(block, Attends):
                found.append(block.weights(x, past).mean(1))
            x, _ = block(x, past, alone=False)
        return torch.stack(found).mean(0) if found else None

    @property
    def _each(self) -> Sequence[Block]:
        return list(self.blocks)  # type: ignore[arg-type]

    def _run(self, state: StackState, x: Tensor, *, alone: Any) -> tuple[Tensor, tuple[Past, ...]]:
        x, pasts = self.enter(x), []
        for block, past in zip(self._each, state.pasts, strict=True):
            x, past = block(x, past, alone=alone)
            pasts.append(past)
        return self.leave(x), tuple(pasts)


@dataclass(frozen=True)
class KeysValues(Record):
    """The keys and values of the items read so far."""

    keys: Tensor  # [B, heads, items, key_size]
    values: Tensor  # [B, heads, items, value_size]

    @property
    def num_items(self) -> int:
        return self.keys.shape[2]


@dataclass(frozen=True)
class Window(Record):
    """The keys and values of the last items read, in a fixed number of places: the newest last, the others empty."""

    keys: Tensor  # [B, heads, places, key_size]
    values: Tensor  # [B, heads, places, value_size]
    num_items: Tensor  # [B] int64, the number of items read, which may exceed that of the places


@dataclass(frozen=True)
class ItemCount(Record):
    """The number of items read, which differs from row to row and is never read by Python."""

    num_items: Tensor  # [B] int64


def of_fixed_shape(past: Past, num_places: int) -> Past:
    """A block's empty past as one whose shape stays the same, for reading one item at a time."""
    if isinstance(past, KeysValues):
        empty = past.map(lambda value: value.new_zeros(*value.shape[:2], num_places, value.shape[3]))
        return Window(empty.keys, empty.values, empty.keys.new_zeros(len(empty), dtype=torch.int64))
    if isinstance(past, Tensor) and past.dtype == torch.int64:
        return ItemCount(past)
    return past


def no_keys(num_rows: int, heads: int, key_size: int, value_size: int, like: Tensor) -> KeysValues:
    """The empty past of attention, with the dtype and device of `like`."""
    shape = (num_rows, heads, 0)
    return KeysValues(like.new_empty(*shape, key_size), like.new_empty(*shape, value_size))


def attend(
    query: Tensor, new: KeysValues, past: KeysValues | Window, *, alone: bool | Tensor
) -> tuple[Tensor, KeysValues | Window]:
    """The outputs [B, heads, T, value_size] for queries [B, heads, T, key_size] of T new items, and the new past.

    Each item sees the past, the new items before it and itself. With `alone`, each sees the past and itself only, and
    the past is returned unchanged; a tensor [T] says which items no other one sees. A `Window` reads one item at a
    time, which must not be `alone`.
    """
    if isinstance(past, Window):
        return _attend_in_window(query, new, past)
    if isinstance(alone, Tensor):
        return _attend_apart(query, new, past, alone)
    if alone:
        scale = query.shape[-1] ** -0.5
        own = (query * new.keys).sum(-1, keepdim=True)  # [B, heads, T, 1]
        weight = (torch.cat([query @ past.keys.mT, own], -1) * scale).softmax(-1)
        return weight[..., :-1] @ past.values + weight[..., -1:] * new.values, past
    num_past, num_new = past.num_items, new.num_items
    if num_past:
        new = KeysValues(torch.cat([past.keys, new.keys], 2), torch.cat([past.values, new.values], 2))
    visible = None
    if num_past and num_new > 1:
        visible = torch.ones(num_new, num_past + num_new, dtype=torch.bool, device=query.device).tril(num_past)
    causal = visible is None and num_new > 1
    return scaled_dot_product_attention(query, new.keys, new.values, visible, is_causal=causal), new


def _attend_apart(query: Tensor, new: KeysValues, past: KeysValues, alone: Tensor) -> tuple[Tensor, KeysValues]:
    """`attend` where no later item sees those of the new ones that are `alone` [T]; the new past has the others."""
    number = torch.arange(len(alone), device=alone.device)
    visible = ((number < number[:, None]) & ~alone) | (number == number[:, None])
    visible = torch.cat([visible.new_ones(len(alone), past.num_items), visible], 1)
    keys, values = torch.cat([past.keys, new.keys], 2), torch.cat([past.values, new.values], 2)
    found = scaled_dot_product_attention(query, keys, values, visible)
    kept = torch.cat([alone.new_ones(past.num_items), ~alone])
    return found, KeysValues(keys[:, :, kept], values[:, :, kept])


def attention_weights(query: Tensor, new: KeysValues, past: KeysValues) -> Tensor:
    """The weights [B, heads, items + 1] with which `attend` reads one new item's past and itself; its T is 1."""
    keys = torch.cat([past.keys, new.keys], 2)
    return (query @ keys.mT * query.shape[-1] ** -0.5).softmax(-1).squeeze(2)


def _attend_in_window(query: Tensor, new: KeysValues, past: Window) -> tuple[Tensor, Window]:
    """`attend` for one new item, in plain products; the new item takes the place of the oldest."""
    keys, values = torch.cat([past.keys[:, :, 1:], new.keys], 2), torch.cat([past.values[:, :, 1:], new.values], 2)
    num_items, num_places = past.num_items + 1, keys.shape[2]
    empty = torch.arange(num_places, device=keys.device) < num_places - num_items[:, None]  # [B, places]
    scores = (query @ keys.mT) * query.shape[-1] ** -0.5
    weight = scores.masked_fill(empty[:, None, None], -torch.inf).softmax(-1)
    return weight @ values, Window(keys, values, num_items)


def queries_keys_values(fan_in: int, key_size: int, value_size: int, *, generator: torch.Generator) -> Linear:
    """One linear layer giving a query, a key and a value: [..., fan_in] -> [..., key_size + key_size + value_size].

    Query and key weights start equal, so an item attends to similar items from the start; with independent random
    weights, in-context learning may take long to emerge.
    """
    layer = Linear(fan_in, 2 * key_size + value_size, device=generator.device)
    query, key, value = layer.weight.data.split([key_size, key_size, value_size])
    for weight in (query, value):
        orthogonal_(weight, generator=generator)
    key.copy_(query)
    nn.init.zeros_(layer.bias)
    return layer
