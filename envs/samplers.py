"""Ranges that a task's parameters are drawn from: `Uniform(0, 3)`, `LogUniform(1 / 2, 2)`, `Choice(-1, 1)`.

A range declares what lies outside of it too: values of the split "ood" come from a band beyond the range, a third as
wide. Of a range that holds no negative value, that is the band above; of one without positive values, the band below;
of any other, both. A range of ratios (`LogUniform`) has a band at either end, a third as wide on a logarithmic scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from metarl.protocols import Split

OOD_WIDTH = 1 / 3  # of the band outside, relative to the range


@runtime_checkable
class Sampler(Protocol):
    """A distribution over the values of one parameter."""

    @property
    def has_ood(self) -> bool:
        """Whether there are values outside the range."""
        ...

    def sample(self, shape: Sequence[int], split: Split, generator: torch.Generator) -> Tensor:
        """Values [*shape] float32 on the generator's device."""
        ...

    def contains(self, values: Tensor) -> Tensor:
        """Which values training can draw: [...] bool."""
        ...


@dataclass(frozen=True)
class Selection:
    """What a value means to a simulator's model, and for which of its elements; see `envs.mujoco_family`."""

    _: KW_ONLY
    bodies: Sequence[str] = ()
    joints: Sequence[str] = ()
    geoms: Sequence[str] = ()
    actuators: Sequence[str] = ()
    scale: bool = True  # the values multiply the model's own; if not, they replace them


@dataclass(frozen=True)
class Uniform(Selection):
    """Numbers between `low` and `high`, all equally likely."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_order(self)

    @property
    def has_ood(self) -> bool:
        return True

    def sample(self, shape: Sequence[int], split: Split, generator: torch.Generator) -> Tensor:
        share = torch.rand(tuple(shape), generator=generator, device=generator.device)
        if split == "ood":
            share = _outside(share, below=self.low < 0, above=self.high > 0)
        return self.low + (self.high - self.low) * share

    def contains(self, values: Tensor) -> Tensor:
        return _between(values, self.low, self.high)


@dataclass(frozen=True)
class LogUniform(Selection):
    """Positive numbers between `low` and `high` whose logarithms are all equally likely: ratios, such as 1/2 to 2."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_order(self)
        if self.low <= 0:
            raise ValueError(f"low of LogUniform is {self.low}: allowed are positive numbers")

    @property
    def has_ood(self) -> bool:
        return True

    def sample(self, shape: Sequence[int], split: Split, generator: torch.Generator) -> Tensor:
        share = torch.rand(tuple(shape), generator=generator, device=generator.device)
        if split == "ood":
            share = _outside(share, below=True, above=True)
        return self.low * (self.high / self.low) ** share

    def contains(self, values: Tensor) -> Tensor:
        return _between(values, self.low, self.high)


@dataclass(frozen=True)
class Choice(Selection):
    """One of some numbers, all equally likely; it has nothing outside."""

    values: Sequence[float]

    def __post_init__(self) -> None:
        if not self.values or not all(
            isinstance(value, (int, float)) and math.isfinite(value) for value in self.values
        ):
            raise ValueError(f"values of Choice are {self.values!r}: allowed is a list of finite numbers")

    @property
    def has_ood(self) -> bool:
        return False

    def sample(self, shape: Sequence[int], split: Split, generator: torch.Generator) -> Tensor:
        """Values [*shape]; of the split "ood" too, for tasks that lie outside by another parameter."""
        index = torch.randint(len(self.values), tuple(shape), generator=generator, device=generator.device)
        return torch.tensor(self.values, dtype=torch.float32, device=generator.device)[index]

    def contains(self, values: Tensor) -> Tensor:
        return (values.unsqueeze(-1) == torch.tensor(self.values, dtype=values.dtype, device=values.device)).any(-1)


def _check_order(sampler: Any) -> None:
    name = type(sampler).__name__
    for field in ("low", "high"):
        value = getattr(sampler, field)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{field} of {name} is {value!r}: allowed are finite numbers")
    if not sampler.low < sampler.high:
        raise ValueError(f"{name} has low {sampler.low} and high {sampler.high}: low must be less than high")


def _outside(share: Tensor, below: bool, above: bool) -> Tensor:
    """Shares [0, 1) of the range, as shares of the bands outside it; never one of its ends."""
    if below and above:
        distance = (2 * share) % 1  # the first half of the shares goes below, the second above
        lower = share < 0.5
    else:
        distance = share
        lower = torch.full_like(share, below, dtype=torch.bool)
    distance = OOD_WIDTH * (1 - distance).clamp(min=1e-3)
    return torch.where(lower, -distance, 1 + distance)


def _between(values: Tensor, low: float, high: float) -> Tensor:
    slack = 2e-7 * max(abs(low), abs(high))  # values are float32
    return (values >= low - slack) & (values <= high + slack)
