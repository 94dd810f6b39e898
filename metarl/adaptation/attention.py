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

    def _run(self, state: StackState, x: Tensor, *, alone: bool) -> tuple[Tensor, tuple[Past, ...]]:
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


def no_keys(num_rows: int, heads: int, key_size: int, value_size: int, like: Tensor) -> KeysValues:
    """The empty past of attention, with the dtype and device of `like`."""
    shape = (num_rows, heads, 0)
    return KeysValues(like.new_empty(*shape, key_size), like.new_empty(*shape, value_size))


def attend(query: Tensor, new: KeysValues, past: KeysValues, *, alone: bool) -> tuple[Tensor, KeysValues]:
    """The outputs [B, heads, T, value_size] for queries [B, heads, T, key_size] of T new items, and the new past.

    Each item sees the past, the new items before it and itself. With `alone`, each sees the past and itself only, and
    the past is returned unchanged.
    """
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


def attention_weights(query: Tensor, new: KeysValues, past: KeysValues) -> Tensor:
    """The weights [B, heads, items + 1] with which `attend` reads one new item's past and itself; its T is 1."""
    keys = torch.cat([past.keys, new.keys], 2)
    return (query @ keys.mT * query.shape[-1] ** -0.5).softmax(-1).squeeze(2)


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
