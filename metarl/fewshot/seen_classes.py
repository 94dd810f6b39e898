"""What was seen of each class in a learned embedding: sums of it, or all examples as they came.

The states of methods that compare, and the distances and class memberships that they compute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from metarl.records import Record, cat


@dataclass(frozen=True)
class ClassSums(Record):
    """What was seen of each class."""

    count: Tensor  # [N, W] examples
    total: Tensor  # [N, W, D] of their embeddings

    @classmethod
    def empty(cls, num_tasks: int, size: int, like: Tensor) -> Self:
        """Nothing seen, of no class; of the type and on the device of `like`."""
        return cls(like.new_zeros(num_tasks, 0), like.new_zeros(num_tasks, 0, size))

    @property
    def means(self) -> Tensor:
        """[N, W, D]; zero for classes of which empty was seen."""
        return self.total / self.count.clamp(min=1).unsqueeze(-1)

    def append(self, embedded: Tensor, y: Tensor, valid: Tensor | None) -> ClassSums:
        """With further examples: embeddings [N, K, D] and classes [N, K]; `valid` [N, K] tells padding apart."""
        ways = max(self.count.shape[1], num_classes(y))
        member = one_hot(y, ways, valid).to(embedded.dtype)  # [N, K, W]
        return ClassSums(
            with_size(self.count, ways) + member.sum(1), with_size(self.total, ways) + member.mT @ embedded
        )

    def mask_unseen(self, logits: Tensor) -> Tensor:
        """Logits [N, Q, W] with classes of which empty was seen out of the question."""
        return torch.where(self.count.unsqueeze(1) > 0, logits, -torch.inf)


@dataclass(frozen=True)
class EmbeddedExamples(Record):
    """All examples that were seen, in the order in which they were."""

    x: Tensor  # [N, K, D] embeddings; zero where there is padding
    y: Tensor  # [N, K] int64 their classes
    valid: Tensor  # [N, K] bool, false for padding

    @classmethod
    def empty(cls, num_tasks: int, size: int, like: Tensor) -> Self:
        """No example; of the type and on the device of `like`."""
        empty = torch.zeros(num_tasks, 0, dtype=torch.int64, device=like.device)
        return cls(like.new_zeros(num_tasks, 0, size), empty, empty.bool())

    def append(self, embedded: Tensor, y: Tensor, valid: Tensor | None) -> EmbeddedExamples:
        """With further examples: embeddings [N, K, D] and classes [N, K]; `valid` [N, K] tells padding apart."""
        valid = torch.ones_like(y, dtype=torch.bool) if valid is None else valid
        embedded = torch.where(valid.unsqueeze(-1), embedded, 0.0)
        more = EmbeddedExamples(embedded, y, valid)
        return cat([self, more], 1)

    @property
    def member(self) -> Tensor:
        """Whether an example is of a class, [N, K, W] bool; padding is of none."""
        return one_hot(self.y, num_classes(self.y), self.valid)

    def mask_unseen(self, logits: Tensor) -> Tensor:
        """Logits [N, Q, W] with classes of which empty was seen out of the question."""
        return torch.where(self.member.any(1, keepdim=True), logits, -torch.inf)


def num_classes(y: Tensor) -> int:
    """As many as the largest number of a class [N, K] says; none without examples."""
    return int(y.max()) + 1 if y.numel() else 0


def one_hot(y: Tensor, ways: int, valid: Tensor | None = None) -> Tensor:
    """Whether an example is of a class: y [..., K] -> [..., K, ways] bool; padding is of none."""
    member = y.unsqueeze(-1) == torch.arange(ways, device=y.device)
    return member if valid is None else member & valid.unsqueeze(-1)


def with_size(values: Tensor, ways: int) -> Tensor:
    """[N, W, ...] with zeros for further classes, up to `ways` of them."""
    missing = ways - values.shape[1]
    if missing <= 0:
        return values
    return torch.cat([values, values.new_zeros(len(values), missing, *values.shape[2:])], 1)


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Cosines [N, Q, W] between a [N, Q, D] and b [N, W, D]; zero with a vector of zeros."""
    return nn.functional.normalize(a, dim=-1) @ nn.functional.normalize(b, dim=-1).mT
