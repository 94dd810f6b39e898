"""Adaptation by comparison: the state is what was seen of each class in a learned embedding; nothing else adapts.

Snell, Swersky, Zemel. Prototypical networks for few-shot learning (2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from metarl.records import Examples, Record

Distance = Literal["euclidean", "cosine"]


@dataclass(frozen=True)
class ClassSums(Record):
    """What was seen of each class."""

    count: Tensor  # [N, W] examples
    total: Tensor  # [N, W, D] of their embeddings

    @property
    def means(self) -> Tensor:
        """[N, W, D]; zero for classes of which nothing was seen."""
        return self.total / self.count.clamp(min=1).unsqueeze(-1)


class PrototypeAdaptation(nn.Module):
    """A class is the mean of its examples' embeddings; a query belongs to the nearest.

    embed: images [N, K, ...] -> [N, K, D]. distance: squared euclidean, as published, or the cosine's, one minus it
    times a learned scale. There may be more or fewer classes in a task than in meta-training; those of which nothing
    was seen are never predicted.
    """

    def __init__(self, embed: nn.Module, *, size: int, distance: Distance = "euclidean") -> None:
        super().__init__()
        if distance not in get_args(Distance):
            raise ValueError(f"distance is {distance!r}; allowed are {', '.join(get_args(Distance))}")
        self.embed, self.size, self.distance = embed, size, distance
        if distance == "cosine":
            self.log_scale = nn.Parameter(torch.tensor(10.0).log())

    def prior(self, num_tasks: int) -> ClassSums:
        """Nothing seen, of no class."""
        like = next(self.parameters())
        return ClassSums(like.new_zeros(num_tasks, 0), like.new_zeros(num_tasks, 0, self.size))

    def adapt(self, state: ClassSums, context: Examples) -> ClassSums:
        """The sums with the examples of context [N, K, ...] added."""
        embedded = self.embed(context.x)
        ways = max(state.count.shape[1], int(context.y.max()) + 1)
        member = one_hot(context.y, ways, context.valid).to(embedded.dtype)  # [N, K, W]
        return ClassSums(
            with_size(state.count, ways) + member.sum(1), with_size(state.total, ways) + member.mT @ embedded
        )

    def predict(self, state: ClassSums, x: Tensor) -> Tensor:
        """Logits [N, Q, W] for queries x [N, Q, ...]."""
        query, prototypes = self.embed(x), state.means
        if self.distance == "cosine":
            normalise = nn.functional.normalize
            logits = self.log_scale.exp() * (normalise(query, dim=-1) @ normalise(prototypes, dim=-1).mT)
        else:
            logits = -squared_distances(query, prototypes)
        return torch.where(state.count.unsqueeze(1) > 0, logits, -torch.inf)


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


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared euclidean distances [N, Q, W] of a [N, Q, D] and b [N, W, D], by one product of matrices."""
    return a.square().sum(-1, keepdim=True) - 2 * a @ b.mT + b.square().sum(-1).unsqueeze(1)
