"""Samplers of robots' tasks: multipliers of a model's own values, and goals in a disc."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import get_args

import torch
from torch import Tensor

from envs.samplers import Ood, fractions_in_training, fractions_of_split, shown, uniform_fractions
from metarl.checks import at_least, one_of, positive
from metarl.protocols import Split


@dataclass(frozen=True, repr=False)
class Multiplier:
    """Multipliers base^u, u ~ U(-exponent, exponent), as the papers define them.

    `LogUniform(base**-exponent, base**exponent)` is the same distribution, with other roundings.
    """

    base: float  # base of the multipliers base^u
    exponent: float = 1.0  # bound on u in training: u ~ U(-exponent, exponent)
    _: KW_ONLY
    num_values: int = 0  # number of different values in training, evenly spaced in u; 0: any value
    ood: Ood = "extrapolation"  # position of split "ood": beyond both ends, or in the middle third

    def __post_init__(self) -> None:
        at_least(self, 1.001, "base")
        positive(self, "exponent")
        at_least(self, 0, "num_values")
        one_of(self, "ood", get_args(Ood))
        if self.ood == "interpolation" and self.num_values % 3:
            raise ValueError(f"num_values is {self.num_values}; must be a multiple of 3 with ood 'interpolation'")

    def __repr__(self) -> str:
        return shown(self)

    @property
    def has_ood(self) -> bool:
        return True

    def sample(self, shape: Sequence[int], split: Split, generator: torch.Generator) -> Tensor:
        return self.base ** (self.exponent * self._signed(uniform_fractions(shape, generator), split))

    def _signed(self, uniform: Tensor, split: Split) -> Tensor:
        """Map fractions [0, 1) to u / exponent for the tasks of a split; in training, this is from -1 to 1."""
        fractions = fractions_of_split(uniform, split, self.ood, below=True, above=True)
        if self.num_values:
            fractions = ((fractions * self.num_values).floor() + 0.5) / self.num_values
        return 2 * fractions - 1

    def contains(self, values: Tensor) -> Tensor:
        u = values.log() / math.log(self.base)
        return fractions_in_training((u / self.exponent + 1) / 2, self.ood)


@dataclass(frozen=True, repr=False)
class Disc:
    """Points in the plane, uniform in a disc around the origin: at distance radius * sqrt(u), u ~ U[0, 1]."""

    radius: float  # largest distance from the origin in training, in m
    _: KW_ONLY
    ood: Ood = "extrapolation"  # position of split "ood": farther away, or at the middle third of the area

    def __post_init__(self) -> None:
        positive(self, "radius")
        one_of(self, "ood", get_args(Ood))

    def __repr__(self) -> str:
        return shown(self)

    @property
    def has_ood(self) -> bool:
        return True

    def sample(self, shape: Sequence[int], split: Split, generator: torch.Generator) -> Tensor:
        """Points [*shape, 2] float32."""
        angle = 2 * math.pi * uniform_fractions(shape, generator)
        u = fractions_of_split(uniform_fractions(shape, generator), split, self.ood, below=False, above=True)
        distance = self.radius * u.sqrt()
        return distance[..., None] * torch.stack((angle.cos(), angle.sin()), dim=-1)

    def contains(self, values: Tensor) -> Tensor:
        return fractions_in_training(values.square().sum(dim=-1) / self.radius**2, self.ood)
