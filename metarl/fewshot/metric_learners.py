"""Few-shot learners that compare examples: prototypical, matching, relation and siamese nets, MetaOptNet.

Snell, Swersky, Zemel. Prototypical networks for few-shot learning (2017).
Vinyals et al. Matching networks for one shot learning (2016).
Sung et al. Learning to compare: relation network for few-shot learning (2018).
Koch, Zemel, Salakhutdinov. Siamese neural networks for one-shot image recognition (2015).
Lee, Maji, Ravichandran, Soatto. Meta-learning with differentiable convex optimization (2019).

Deviations: 1. support and queries are embedded apart, so that running statistics see them one after the other; the
published code normalises both together in meta-training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import nn

from metarl.adaptation.convex_heads import ConvexHeadAdaptation, Ridge, SupportVectors
from metarl.adaptation.matching import FullContexts, MatchingAdaptation
from metarl.adaptation.metric import Distance, PrototypeAdaptation
from metarl.adaptation.relation import Pooling, Relation, RelationAdaptation
from metarl.adaptation.siamese import Likeness, SiameseAdaptation
from metarl.fewshot.embedding import EMBEDDING, EmbeddingConfig
from metarl.fewshot.problem import Classification
from metarl.nets.conv import ConvConfig, ConvNet

MAPS = replace(EMBEDDING, output="maps", num_downsampled=2)


@dataclass(frozen=True)
class PrototypicalConfig(EmbeddingConfig):
    """Prototypical network: a class is the mean of its examples' embeddings."""

    distance: Distance = "euclidean"

    def make_adaptation(self, embed: ConvNet, problem: Classification, generator: torch.Generator) -> nn.Module:
        return PrototypeAdaptation(embed, size=embed.output_size, distance=self.distance)


@dataclass(frozen=True)
class MatchingConfig(EmbeddingConfig):
    """Matching network: a query takes the classes of the examples that it attends to."""

    context_steps: int = 0  # rounds of attention in full context embeddings; 0: each is embedded for itself

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context_steps < 0:
            raise ValueError(f"context_steps is {self.context_steps}; it must be 0 or more")

    def make_adaptation(self, embed: ConvNet, problem: Classification, generator: torch.Generator) -> nn.Module:
        contexts = None
        if self.context_steps:
            contexts = FullContexts(embed.output_size, num_steps=self.context_steps, generator=generator)
        return MatchingAdaptation(embed, size=embed.output_size, contexts=contexts)


@dataclass(frozen=True)
class RelationConfig(EmbeddingConfig):
    """Relation network: a second net scores how a query is related to each class."""

    conv: ConvConfig = MAPS
    takes_maps: ClassVar[bool] = True
    hidden_size: int = 8  # between the relation's maps and its score
    pooling: Pooling = "sum"  # of the maps of a class

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size < 1:
            raise ValueError(f"hidden_size is {self.hidden_size}; it must be at least 1")

    def make_adaptation(self, embed: ConvNet, problem: Classification, generator: torch.Generator) -> nn.Module:
        relation = Relation(embed.map_shape, self.conv, hidden_size=self.hidden_size, generator=generator)
        return RelationAdaptation(embed, relation, pooling=self.pooling)


@dataclass(frozen=True)
class SiameseConfig(EmbeddingConfig):
    """Siamese network: the odds that two images are of one class, by a weighted sum of differences of features."""

    feature_size: int = 256
    likeness: Likeness = "best"  # of a class: its likest example's, or the mean over its examples

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.feature_size < 1:
            raise ValueError(f"feature_size is {self.feature_size}; it must be at least 1")

    def make_adaptation(self, embed: ConvNet, problem: Classification, generator: torch.Generator) -> nn.Module:
        return SiameseAdaptation(
            embed,
            size=embed.output_size,
            feature_size=self.feature_size,
            likeness=self.likeness,
            generator=generator,
        )


@dataclass(frozen=True)
class MetaOptNetConfig(EmbeddingConfig):
    """MetaOptNet: the best linear classifier of the examples' embeddings, a support vector machine or ridge regression.

    The embedding is learned through the optimum.
    """

    head: Literal["svm", "ridge"] = "svm"
    ridge: float = 1.0  # added to the diagonal of the products of embeddings
    cost: float = 0.1  # of what lacks to the machine's margin, C
    num_steps: int = 200  # of the machine's solver

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head not in ("svm", "ridge"):
            raise ValueError(f"head is {self.head!r}; allowed are 'svm' and 'ridge'")
        for name in ("ridge", "cost"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")
        if self.num_steps < 1:
            raise ValueError(f"num_steps is {self.num_steps}; it must be at least 1")

    def make_adaptation(self, embed: ConvNet, problem: Classification, generator: torch.Generator) -> nn.Module:
        head = Ridge(self.ridge) if self.head == "ridge" else SupportVectors(self.ridge, self.cost, self.num_steps)
        return ConvexHeadAdaptation(embed, head, size=embed.output_size)
