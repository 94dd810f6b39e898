"""SNAIL: temporal convolutions that aggregate recent items, and attention that picks out single items.

Mishra, Rohaninejad, Chen, Abbeel. A simple neural attentive meta-learner (2018).

Every block appends its output to its input, so the inputs of later blocks grow.

Deviations: 1. convolutions are dilated by 1, 2, 4, ... until they reach back over `length` items, as in the paper's
text; its pseudo-code starts at 2 and would never see the previous item. 2. if a `hidden_size` is given, a linear layer
maps the last block's output to it. 3. query and key weights start equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor, nn

from metarl.adaptation.attention import (
    CausalStack,
    KeysValues,
    Window,
    attend,
    attention_weights,
    no_keys,
    queries_keys_values,
)
from metarl.checks import LARGEST_WIDTH, at_least, not_empty, widths
from metarl.nets.initialisation import orthogonal_
from metarl.nets.mlp import linear


@dataclass(frozen=True)
class SnailConfig:
    """Settings of a SNAIL: alternating blocks of convolutions and attention.

    The kind with more blocks comes first; with equal numbers, convolutions come first.
    """

    filters: tuple[int, ...] = (32, 32)  # filters of each block of convolutions
    key_sizes: tuple[int, ...] = (32, 32)  # key size of each block of attention
    value_sizes: tuple[int, ...] = (32, 32)  # value size of each block of attention
    length: int = 64  # number of items that a block of convolutions spans, including the current one

    def __post_init__(self) -> None:
        not_empty(self, "filters", "key_sizes", "value_sizes")
        widths(self, "filters", "key_sizes", "value_sizes")
        if len(self.key_sizes) != len(self.value_sizes):
            raise ValueError(
                f"key_sizes is {self.key_sizes} and value_sizes {self.value_sizes}; must have equal lengths"
            )
        if abs(len(self.filters) - len(self.key_sizes)) > 1:
            raise ValueError(
                f"filters is {self.filters} and key_sizes {self.key_sizes}; must differ in length by at most 1, "
                "because blocks alternate"
            )
        at_least(self, 2, "length", at_most=LARGEST_WIDTH)

    @property
    def num_dilations(self) -> int:
        """Layers in a block of convolutions: the logarithm of `length` to base 2, rounded up."""
        return (self.length - 1).bit_length()

    def make(self, input_size: int, hidden_size: int | None = None, *, generator: torch.Generator) -> CausalStack:
        """A SNAIL; without a hidden_size, its output is the full output of its last block."""
        attention = list(zip(self.key_sizes, self.value_sizes, strict=True))
        pairs = zip_longest(self.filters, attention)
        if len(attention) > len(self.filters):
            pairs = zip_longest(attention, self.filters)
        blocks, size = [], input_size
        for settings in (settings for pair in pairs for settings in pair if settings is not None):
            if isinstance(settings, int):
                blocks.append(Convolutions(size, settings, self.num_dilations, generator=generator))
                size += settings * self.num_dilations
            else:
                blocks.append(Lookup(size, *settings, generator=generator))
                size += settings[1]
        leave = nn.Identity() if hidden_size is None else linear(size, hidden_size, gain=1.0, generator=generator)
        return CausalStack(nn.Identity(), blocks, leave, hidden_size=size if hidden_size is None else hidden_size)


class Convolutions(nn.Module):
    """The paper's TC block: gated causal convolutions over two items 1, 2, 4, ... apart, densely connected.

    Its past is the input of its last layer at the items it reaches back to, [B, reach, size], zero before the first
    item; the inputs of the other layers are prefixes of it.
    """

    def __init__(self, input_size: int, filters: int, num_layers: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.filters, self.reach = filters, 2 ** (num_layers - 1)
        sizes = [input_size + filters * layer for layer in range(num_layers)]
        self.past_size = sizes[-1]
        self.here = nn.ModuleList(nn.Linear(size, 2 * filters, True, generator.device) for size in sizes)
        self.before = nn.ModuleList(nn.Linear(size, 2 * filters, False, generator.device) for size in sizes)
        for layer in (*self.here, *self.before):
            for weight in layer.weight.split(filters):  # type: ignore[operator]
                orthogonal_(weight, 0.5**0.5, generator=generator)
        for layer in self.here:
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def prior(self, num_rows: int) -> Tensor:
        like = self.here[0].weight
        assert isinstance(like, Tensor)
        return like.new_zeros(num_rows, self.reach, self.past_size)

    def forward(self, x: Tensor, past: Tensor, *, alone: bool) -> tuple[Tensor, Tensor]:
        num_items, inputs = x.shape[1], x
        for layer, (here, before) in enumerate(zip(self.here, self.before, strict=True)):
            inputs, dilation, size = x, 2**layer, x.shape[-1]
            if alone:
                earlier = past[:, self.reach - dilation, None, :size]
            elif num_items <= dilation:
                start = self.reach - dilation
                earlier = past[:, start : start + num_items, :size]
            else:
                earlier = torch.cat([past[:, self.reach - dilation :, :size], x[:, :-dilation]], 1)
            value, gate = (here(x) + before(earlier)).chunk(2, -1)
            x = torch.cat([x, value.tanh() * gate.sigmoid()], -1)
        return x, past if alone else torch.cat([past, inputs], 1)[:, -self.reach :]


class Lookup(nn.Module):
    """The paper's attention block: one head, whose output is appended to its input. Its past holds keys and values."""

    def __init__(self, input_size: int, key_size: int, value_size: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.key_size, self.value_size = key_size, value_size
        self.sizes = [key_size, key_size, value_size]
        self.project = queries_keys_values(input_size, key_size, value_size, generator=generator)

    def prior(self, num_rows: int) -> KeysValues:
        return no_keys(num_rows, 1, self.key_size, self.value_size, self.project.weight)

    def forward(self, x: Tensor, past: KeysValues | Window, *, alone: bool) -> tuple[Tensor, KeysValues | Window]:
        query, key, value = self.project(x).unsqueeze(1).split(self.sizes, -1)
        found, past = attend(query, KeysValues(key, value), past, alone=alone)
        return torch.cat([x, found.squeeze(1)], -1), past

    def weights(self, x: Tensor, past: KeysValues) -> Tensor:
        """How much the next item x [B, 1, in] attends to each one before it, and to itself: [B, 1, items + 1]."""
        query, key, value = self.project(x).unsqueeze(1).split(self.sizes, -1)
        return attention_weights(query, KeysValues(key, value), past)
