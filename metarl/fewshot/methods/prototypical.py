"""Prototypical networks: a class is represented by the mean of its examples' embeddings.

Snell, Swersky, Zemel. Prototypical networks for few-shot learning (2017).

Deviations: 1. support and queries are embedded separately, so running statistics are updated by one, then the other;
the published code normalises both together in meta-training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from metarl.fewshot.amortised import ExampleAdaptation
from metarl.fewshot.embedding import EmbeddingConfig
from metarl.fewshot.problem import Classification
from metarl.fewshot.seen_classes import ClassSums, cosines
from metarl.nets.conv import ConvNet
from metarl.records import Examples

Distance = Literal["euclidean", "cosine"]


class PrototypeAdaptation(ExampleAdaptation[ClassSums]):
    """A class is represented by the mean of its examples' embeddings; a query belongs to the nearest class.

    embed: images [N, K, ...] -> [N, K, D]. distance: squared Euclidean, as published, or cosine distance times a
    learned scale. A task may have more or fewer classes than in meta-training; classes without examples are never
    predicted.
    """

    def __init__(self, embed: ConvNet, *, distance: Distance = "euclidean") -> None:
        super().__init__()
        if distance not in get_args(Distance):
            raise ValueError(f"distance is {distance!r}; must be one of {', '.join(get_args(Distance))}")
        self.embed, self.distance = embed, distance
        if distance == "cosine":
            self.log_scale = nn.Parameter(torch.tensor(10.0).log())

    def prior(self, num_tasks: int) -> ClassSums:
        return ClassSums.empty(num_tasks, self.embed.output_size, next(self.parameters()))

    def adapt(self, state: ClassSums, context: Examples) -> ClassSums:
        """The sums, including the examples of context [N, K, ...]."""
        return state.append(self.embed(context.x), context.y, context.valid)

    def predict(self, state: ClassSums, x: Tensor) -> Tensor:
        """Logits [N, Q, W] for queries x [N, Q, ...]."""
        query, prototypes = self.embed(x), state.means
        if self.distance == "cosine":
            logits = self.log_scale.exp() * cosines(query, prototypes)
        else:
            logits = -squared_distances(query, prototypes)
        return state.mask_unseen(logits)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances [N, Q, W] between a [N, Q, D] and b [N, W, D], by one matrix product."""
    return a.square().sum(-1, keepdim=True) - 2 * a @ b.mT + b.square().sum(-1).unsqueeze(1)


@dataclass(frozen=True)
class PrototypicalConfig(EmbeddingConfig):
    """Prototypical network: a class is the mean of its examples' embeddings."""

    distance: Distance = "euclidean"  # distance between embeddings: squared Euclidean or scaled cosine

    def make_adaptation(
        self, embed: ConvNet, problem: Classification, generator: torch.Generator
    ) -> PrototypeAdaptation:
        return PrototypeAdaptation(embed, distance=self.distance)
