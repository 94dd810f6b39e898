"""Running means and variances that merge exactly, for normalisers that survive checkpoints and many processes.

Chan, Golub, LeVeque. Updating formulae and a pairwise algorithm for computing sample variances (1979).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from metarl.parallel import exchanged, is_shared
from metarl.records import Record


@dataclass(frozen=True)
class Moments(Record):
    """Count, mean and summed squared deviation of data; merging two gives the moments of all their data."""

    count: Tensor  # [] float64
    mean: Tensor  # [...] float64
    deviation: Tensor  # [...] float64: sum of squared distances from the mean

    @classmethod
    def empty(cls, *shape: int, device: torch.device | str = "cpu") -> Self:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        return cls(count=zeros(), mean=zeros(*shape), deviation=zeros(*shape))

    @classmethod
    def of(cls, values: Tensor) -> Self:
        """Moments of values [K, ...] over their leading axis; K may be zero."""
        values = values.double()
        count = torch.tensor(float(len(values)), dtype=torch.float64, device=values.device)
        mean = values.sum(0) / count.clamp(min=1)
        return cls(count=count, mean=mean, deviation=(values - mean).square().sum(0))

    def merge(self, other: Self) -> Self:
        count = self.count + other.count
        share = other.count / count.clamp(min=1)
        difference = other.mean - self.mean
        return type(self)(
            count=count,
            mean=self.mean + share * difference,
            deviation=self.deviation + other.deviation + share * self.count * difference.square(),
        )

    def of_all(self) -> Self:
        """Those of the data of all processes that share the tasks, merged in their order."""
        first, *others = exchanged(self) if is_shared() else [self]
        for other in others:
            first = first.merge(other.to(first.mean.device))
        return first

    @property
    def std(self) -> Tensor:
        """Standard deviation [...] float64; one until two different values have been seen."""
        std = (self.deviation / self.count.clamp(min=1)).sqrt()
        return torch.where(std > 1e-8, std, torch.ones_like(std))

    def standardise(self, values: Tensor, clip: float = 10.0) -> Tensor:
        """(values - mean) / std, clipped; float32, with any leading axes."""
        mean, std = self.mean.to(values.dtype), self.std.to(values.dtype)
        return ((values - mean) / std).clamp(-clip, clip)
