"""A causal transformer as a memory: it learns in context from the items it has read.

Vaswani et al. Attention is all you need (2017).
Xiong et al. On layer normalization in the transformer architecture (2020): normalisation before each sublayer.
Su et al. RoFormer: enhanced transformer with rotary position embedding (2021).

Deviations: 1. no dropout. 2. the initial scale of the layers that write to the residual stream shrinks with their
number. 3. query and key weights start equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from metarl.adaptation.attention import (
    CausalStack,
    ItemCount,
    KeysValues,
    Window,
    attend,
    attention_weights,
    no_keys,
    queries_keys_values,
)
from metarl.checks import MOST_BLOCKS, at_least, literals, widths
from metarl.nets.mlp import LayerNorm, linear

PositionKind = Literal["none", "learned", "sinusoidal", "rotary"]

_LONGEST_WAVE = 10_000.0  # longest wavelength of sinusoids and rotations, in items per radian


@dataclass(frozen=True)
class TransformerConfig:
    """Settings of a transformer; its width is the size of its output."""

    num_layers: int = 2  # number of transformer layers
    num_heads: int = 4  # number of attention heads, a divisor of the width
    feedforward_ratio: int = 2  # width of the hidden feed-forward layer, as a multiple of the transformer's width
    positions: PositionKind = "rotary"  # position encoding; "none" for an unordered set of examples
    max_items: int = 256  # largest number of items that can be read, with learned positions

    def __post_init__(self) -> None:
        literals(self)
        at_least(self, 1, "num_layers", at_most=MOST_BLOCKS)
        widths(self, "num_heads", "feedforward_ratio", "max_items")

    def check_width(self, hidden_size: int) -> None:
        """Check that the width suits the heads and positions.

        Raises:
            ValueError: when hidden_size is not a multiple of what they need.
        """
        in_heads = {"rotary": 2 * self.num_heads, "sinusoidal": math.lcm(2, self.num_heads)}
        needed = in_heads.get(self.positions, self.num_heads)
        if hidden_size % needed:
            raise ValueError(
                f"hidden_size is {hidden_size}; with {self.num_heads} heads and positions {self.positions!r} "
                f"it must be a multiple of {needed}"
            )

    def make(self, input_size: int, hidden_size: int, *, generator: torch.Generator) -> CausalStack:
        """A fresh transformer of width `hidden_size`.

        Raises:
            ValueError: when hidden_size does not suit the heads and positions.
        """
        self.check_width(hidden_size)
        enter = linear(input_size, hidden_size, gain=1.0, generator=generator)
        blocks: list[nn.Module] = []
        if self.positions == "learned":
            blocks.append(LearnedPositions(self.max_items, hidden_size, generator=generator))
        elif self.positions == "sinusoidal":
            blocks.append(SinusoidalPositions(hidden_size, device=generator.device))
        blocks += [TransformerLayer(self, hidden_size, generator=generator) for _ in range(self.num_layers)]
        leave = LayerNorm(hidden_size, device=generator.device)
        return CausalStack(enter, blocks, leave, hidden_size=hidden_size)


class TransformerLayer(nn.Module):
    """Attention, then a feed-forward layer, each on the normalised residual stream. Its past holds keys and values."""

    def __init__(self, config: TransformerConfig, width: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.num_heads, self.rotary = config.num_heads, config.positions == "rotary"
        gain = (2 * config.num_layers) ** -0.5
        self.attention_norm = LayerNorm(width, device=generator.device)
        self.project = queries_keys_values(width, width, width, generator=generator)
        self.attention_output = linear(width, width, gain=gain, generator=generator)
        self.feedforward = nn.Sequential(
            LayerNorm(width, device=generator.device),
            linear(width, config.feedforward_ratio * width, gain=math.sqrt(2), generator=generator),
            nn.GELU(),
            linear(config.feedforward_ratio * width, width, gain=gain, generator=generator),
        )
        frequencies = _frequencies(width // config.num_heads, generator.device)
        self.register_buffer("frequencies", frequencies, persistent=False)

    frequencies: Tensor  # [head_size / 2], frequencies of the rotation

    def prior(self, num_rows: int) -> KeysValues:
        head_size = self.attention_output.weight.shape[0] // self.num_heads
        return no_keys(num_rows, self.num_heads, head_size, head_size, self.attention_output.weight)

    def forward(
        self, x: Tensor, past: KeysValues | Window, *, alone: bool | Tensor
    ) -> tuple[Tensor, KeysValues | Window]:
        query, new = self._queries(x, past, alone)
        found, past = attend(query, new, past, alone=alone)
        x = x + self.attention_output(found.transpose(1, 2).flatten(2))
        return x + self.feedforward(x), past

    def weights(self, x: Tensor, past: KeysValues) -> Tensor:
        """How much the next item x [B, 1, in] attends to each one before it, and to itself: [B, heads, items + 1]."""
        return attention_weights(*self._queries(x, past, alone=False), past)

    def _queries(self, x: Tensor, past: KeysValues | Window, alone: bool | Tensor) -> tuple[Tensor, KeysValues]:
        """Queries [B, heads, T, head_size], and keys and values, of the items x [B, T, in] after a past."""
        parts = self.project(self.attention_norm(x)).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        if self.rotary:
            angle = _positions(x, past.num_items, alone)[..., None] * self.frequencies
            if isinstance(past, Window):
                angle = angle.unsqueeze(1)  # the same for all heads
            query, key = rotated(query, angle), rotated(key, angle)
        return query, KeysValues(key, value)


class LearnedPositions(nn.Module):
    """Adds a learned vector for each position. Its past is the number of items read, [B] int64."""

    def __init__(self, max_items: int, width: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(max_items, width, device=generator.device))
        nn.init.normal_(self.table, std=0.02, generator=generator)

    def prior(self, num_rows: int) -> Tensor:
        return torch.zeros(num_rows, dtype=torch.int64, device=self.table.device)

    def forward(
        self, x: Tensor, past: Tensor | ItemCount, *, alone: bool | Tensor
    ) -> tuple[Tensor, Tensor | ItemCount]:
        """x plus its positions' vectors, and the past after x.

        With an `ItemCount`, items beyond the last position have that position's vector.

        Raises:
            ValueError: when there are more items than positions.
        """
        if isinstance(past, ItemCount):
            positions = _positions(x, past.num_items, alone).clamp(max=len(self.table) - 1)
            return x + self.table[positions], ItemCount(past.num_items + x.shape[1])
        num_past = int(past[0])  # equal in all rows, which read in step
        positions = _positions(x, num_past, alone)
        if int(positions[-1]) >= len(self.table):
            raise ValueError(
                f"max_items is {len(self.table)}; must be at least {int(positions[-1]) + 1}, the number of this item, "
                "or positions other than 'learned'"
            )
        return x + self.table[positions], past + _num_positions(x, alone)


class SinusoidalPositions(nn.Module):
    """Adds sines and cosines of the position, with periods from 2 pi items up. Its past is the number of items read."""

    def __init__(self, width: int, *, device: torch.device) -> None:
        super().__init__()
        self.register_buffer("frequencies", _frequencies(width, device), persistent=False)

    frequencies: Tensor  # [width / 2]

    def prior(self, num_rows: int) -> Tensor:
        return torch.zeros(num_rows, dtype=torch.int64, device=self.frequencies.device)

    def forward(
        self, x: Tensor, past: Tensor | ItemCount, *, alone: bool | Tensor
    ) -> tuple[Tensor, Tensor | ItemCount]:
        is_count = isinstance(past, ItemCount)
        angle = _positions(x, past.num_items if is_count else int(past[0]), alone)[..., None] * self.frequencies
        x = x + torch.cat([angle.sin(), angle.cos()], -1)
        if is_count:
            return x, ItemCount(past.num_items + x.shape[1])
        return x, past + _num_positions(x, alone)


def _positions(x: Tensor, num_past: int | Tensor, alone: bool | Tensor) -> Tensor:
    """Positions in the sequence of the items of x [B, T, ...]: [T] int64; with `alone`, all are the next position.

    alone: a tensor [T] says which items take no position.

    num_past: the number of items before x; if it is given for each row [B], the positions are [B, T].
    """
    if isinstance(alone, Tensor):
        positions = (~alone).long().cumsum(0) - (~alone).long()
    else:
        positions = torch.arange(x.shape[1], device=x.device) * (not alone)
    return positions + (num_past[:, None] if isinstance(num_past, Tensor) else num_past)


def _num_positions(x: Tensor, alone: bool | Tensor) -> int:
    """The number of positions that the items of x [B, T, ...] take; `alone` as in `_positions`."""
    return int((~alone).sum()) if isinstance(alone, Tensor) else 0 if alone else x.shape[1]


def _frequencies(size: int, device: torch.device) -> Tensor:
    """Radians per item [size / 2], from 1 down to near 1 / 10000."""
    return _LONGEST_WAVE ** -(torch.arange(0, size, 2, device=device) / size)


def rotated(x: Tensor, angle: Tensor) -> Tensor:
    """x [..., T, size] with each pair of entries rotated by an angle [T, size / 2].

    Inner products of rotated vectors depend on the positions only through the distance between the two items.
    """
    first, second = x.chunk(2, -1)
    sin, cos = angle.sin(), angle.cos()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)
