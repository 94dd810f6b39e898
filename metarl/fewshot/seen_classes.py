"""Records of the seen classes in a learned embedding: sums per class, or all examples in order.

States of metric-based methods, with their distances and class memberships.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from metarl.records import Record, cat


@dataclass(frozen=True)
class ClassSums(Record):
    """The number and the summed embeddings of each class's examples."""

    count: Tensor  # [N, W], number of examples
    total: Tensor  # [N, W, D], sum of their embeddings

    @classmethod
    def empty(cls, num_tasks: int, size: int, like: Tensor) -> Self:
        """Sums over no examples, with the dtype and device of `like`."""
        return cls(like.new_zeros(num_tasks, 0), like.new_zeros(num_tasks, 0, size))

    @property
    def means(self) -> Tensor:
        """The mean embedding of each class [N, W, D]; zero for classes without examples."""
        return self.total / self.count.clamp(min=1).unsqueeze(-1)

    def append(self, embedded: Tensor, y: Tensor, valid: Tensor | None) -> ClassSums:
        """The record after adding embeddings [N, K, D] of classes [N, K]; `valid` [N, K] is false for padding."""
        ways = max(self.count.shape[1], num_classes(y))
        member = one_hot(y, ways, valid).to(embedded.dtype)  # [N, K, W]
        return ClassSums(
            with_size(self.count, ways) + member.sum(1), with_size(self.total, ways) + member.mT @ embedded
        )

    def mask_unseen(self, logits: Tensor) -> Tensor:
        """Logits [N, Q, W] with unseen classes masked."""
        return torch.where(self.count.unsqueeze(1) > 0, logits, -torch.inf)


@dataclass(frozen=True)
class EmbeddedExamples(Record):
    """All examples seen so far, in order."""

    x: Tensor  # [N, K, D], embeddings; zero for padding
    y: Tensor  # [N, K] int64, their classes
    valid: Tensor  # [N, K] bool, false for padding

    @classmethod
    def empty(cls, num_tasks: int, size: int, like: Tensor) -> Self:
        """An empty record, with the dtype and device of `like`."""
        empty = torch.zeros(num_tasks, 0, dtype=torch.int64, device=like.device)
        return cls(like.new_zeros(num_tasks, 0, size), empty, empty.bool())

    def append(self, embedded: Tensor, y: Tensor, valid: Tensor | None) -> EmbeddedExamples:
        """The record after adding embeddings [N, K, D] of classes [N, K]; `valid` [N, K] is false for padding."""
        valid = torch.ones_like(y, dtype=torch.bool) if valid is None else valid
        embedded = torch.where(valid.unsqueeze(-1), embedded, 0.0)
        more = EmbeddedExamples(embedded, y, valid)
        return cat([self, more], 1)

    @property
    def member(self) -> Tensor:
        """Class membership [N, K, W] (bool) of the examples; padding has no class."""
        return one_hot(self.y, num_classes(self.y), self.valid)

    def mask_unseen(self, logits: Tensor) -> Tensor:
        """Logits [N, Q, W] with unseen classes masked."""
        return torch.where(self.member.any(1, keepdim=True), logits, -torch.inf)


def num_classes(y: Tensor) -> int:
    """The largest class number in y [N, K] plus one; zero without examples."""
    return int(y.max()) + 1 if y.numel() else 0


def one_hot(y: Tensor, ways: int, valid: Tensor | None = None) -> Tensor:
    """Class membership: y [..., K] -> [..., K, ways] bool; padding has no class."""
    member = y.unsqueeze(-1) == torch.arange(ways, device=y.device)
    return member if valid is None else member & valid.unsqueeze(-1)


def with_size(values: Tensor, ways: int) -> Tensor:
    """[N, W, ...] padded with zeros to `ways` classes."""
    missing = ways - values.shape[1]
    if missing <= 0:
        return values
    return torch.cat([values, values.new_zeros(len(values), missing, *values.shape[2:])], 1)


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarities [N, Q, W] between a [N, Q, D] and b [N, W, D]; zero for zero vectors."""
    return nn.functional.normalize(a, dim=-1) @ nn.functional.normalize(b, dim=-1).mT
