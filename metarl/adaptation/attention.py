"""Memories that look back at every item they have read: causal blocks, each with a past that it carries along.

Vaswani et al. Attention is all you need (2017).

The past of a block holds what later items need of the earlier ones, such as their keys and values, so that reading item
by item costs no more than one pass over all of them, and gives the same. It is never written in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from metarl.adaptation.sequence import SequenceState
from metarl.nets.mlp import Linear
from metarl.records import Record

Past = Any  # a tensor or a record, whose leading axis is B


class Block(Protocol):
    """One causal block of a stack: a module."""

    def prior(self, num_rows: int) -> Past:
        """Its past before any item."""
        ...

    def __call__(self, x: Tensor, past: Past, *, alone: bool) -> tuple[Tensor, Past]:
        """Its output [B, T, out] for x [B, T, in] after the past, and the past after them.

        alone: each of the T is the next item, blind to the others; the past is then returned as it was.
        """
        ...


@dataclass(frozen=True)
class StackState(SequenceState):
    """What a stack of blocks remembers of each row."""

    pasts: tuple[Past, ...]  # of each block


class CausalStack(nn.Module):
    """Causal blocks one after another between two layers that see one item at a time; a `SequenceMemory`."""

    def __init__(self, enter: nn.Module, blocks: Sequence[nn.Module], leave: nn.Module, *, hidden_size: int) -> None:
        super().__init__()
        self.enter, self.blocks, self.leave = enter, nn.ModuleList(blocks), leave
        self.hidden_size = hidden_size

    def prior(self, num_rows: int) -> StackState:
        """Nothing read: what is read is zero."""
        like = next(self.parameters())
        return StackState(
            like.new_zeros(num_rows, self.hidden_size), tuple(block.prior(num_rows) for block in self._each)
        )

    def step(self, state: StackState, x: Tensor) -> StackState:
        """The memory after one more item x [B, in]."""
        read, pasts = self._run(state, x.unsqueeze(1), alone=False)
        return StackState(read[:, 0], pasts)

    def read(self, state: StackState, x: Tensor) -> tuple[Tensor, StackState]:
        """What is read after each of the items x [T, B, in]: [T, B, H]; and the memory after the last."""
        read, pasts = self._run(state, x.transpose(0, 1), alone=False)
        return read.transpose(0, 1), StackState(read[:, -1], pasts)

    def ask(self, state: StackState, x: Tensor) -> Tensor:
        """What would be read [B, Q, H] if one of x [B, Q, in] came next."""
        return self._run(state, x, alone=True)[0]

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
    """What attention remembers of the items so far."""

    keys: Tensor  # [B, heads, items, key_size]
    values: Tensor  # [B, heads, items, value_size]

    @property
    def num_items(self) -> int:
        return self.keys.shape[2]


def no_keys(num_rows: int, heads: int, key_size: int, value_size: int, like: Tensor) -> KeysValues:
    """The past of attention before any item, of the type and on the device of `like`."""
    shape = (num_rows, heads, 0)
    return KeysValues(like.new_empty(*shape, key_size), like.new_empty(*shape, value_size))


def attend(query: Tensor, new: KeysValues, past: KeysValues, *, alone: bool) -> tuple[Tensor, KeysValues]:
    """What queries [B, heads, T, key_size] of T new items find: [B, heads, T, value_size]; and the past after them.

    Each sees the past, the new items before it, and itself; where `alone`, the past and itself, and the past stays.
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


def queries_keys_values(fan_in: int, key_size: int, value_size: int, *, generator: torch.Generator) -> Linear:
    """One linear layer to a query, a key and a value: [..., fan_in] -> [..., key_size + key_size + value_size].

    Queries and keys begin alike, so that an item finds those that are like it from the start; with random ones it may
    take long until anything is learned in context.
    """
    layer = Linear(fan_in, 2 * key_size + value_size, device=generator.device)
    query, key, value = layer.weight.data.split([key_size, key_size, value_size])
    for weight in (query, value):
        nn.init.orthogonal_(weight, generator=generator)
    key.copy_(query)
    nn.init.zeros_(layer.bias)
    return layer
