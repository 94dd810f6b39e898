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

from dataclasses import dataclass
from typing import Literal

import torch

from metarl.adaptation.convex_heads import ConvexHeadAdaptation, Ridge, SupportVectors
from metarl.adaptation.matching import FullContexts, MatchingAdaptation
from metarl.adaptation.metric import Distance, PrototypeAdaptation
from metarl.adaptation.relation import Pooling, Relation, RelationAdaptation
from metarl.adaptation.siamese import Likeness, SiameseAdaptation
from metarl.convnets import ConvConfig, ConvNet
from metarl.fewshot.amortised import AmortisedLearner
from metarl.fewshot.normalising import check_context
from metarl.fewshot.outer_step import OuterConfig
from metarl.fewshot.problem import Classification, Problem

EMBEDDING = ConvConfig(normalisation="running")
MAPS = ConvConfig(normalisation="running", output="maps", num_downsampled=2)


@dataclass(frozen=True)
class PrototypicalConfig(OuterConfig):
    """Prototypical network: a class is the mean of its examples' embeddings."""

    conv: ConvConfig = EMBEDDING
    distance: Distance = "euclidean"

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> AmortisedLearner:
        embed = image_embedding(self, self.conv, problem, generator)
        adaptation = PrototypeAdaptation(embed, size=embed.output_size, distance=self.distance)
        return AmortisedLearner(self, adaptation.to(generator.device), problem, num_iterations)


@dataclass(frozen=True)
class MatchingConfig(OuterConfig):
    """Matching network: a query takes the classes of the examples that it attends to."""

    conv: ConvConfig = EMBEDDING
    context_steps: int = 0  # rounds of attention in full context embeddings; 0: each is embedded for itself

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context_steps < 0:
            raise ValueError(f"context_steps is {self.context_steps}; it must be 0 or more")

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> AmortisedLearner:
        embed = image_embedding(self, self.conv, problem, generator)
        contexts = None
        if self.context_steps:
            contexts = FullContexts(embed.output_size, num_steps=self.context_steps, generator=generator)
        adaptation = MatchingAdaptation(embed, size=embed.output_size, contexts=contexts)
        return AmortisedLearner(self, adaptation.to(generator.device), problem, num_iterations)


@dataclass(frozen=True)
class RelationConfig(OuterConfig):
    """Relation network: a second net scores how a query is related to each class."""

    conv: ConvConfig = MAPS
    hidden_size: int = 8  # between the relation's maps and its score
    pooling: Pooling = "sum"  # of the maps of a class

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size < 1:
            raise ValueError(f"hidden_size is {self.hidden_size}; it must be at least 1")

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> AmortisedLearner:
        embed = image_embedding(self, self.conv, problem, generator, maps=True)
        relation = Relation(embed.map_shape, self.conv, hidden_size=self.hidden_size, generator=generator)
        adaptation = RelationAdaptation(embed, relation, pooling=self.pooling)
        return AmortisedLearner(self, adaptation.to(generator.device), problem, num_iterations)


@dataclass(frozen=True)
class SiameseConfig(OuterConfig):
    """Siamese network: the odds that two images are of one class, by a weighted sum of differences of features."""

    conv: ConvConfig = EMBEDDING
    feature_size: int = 256
    likeness: Likeness = "best"  # of a class: its likest example's, or the mean over its examples

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.feature_size < 1:
            raise ValueError(f"feature_size is {self.feature_size}; it must be at least 1")

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> AmortisedLearner:
        embed = image_embedding(self, self.conv, problem, generator)
        adaptation = SiameseAdaptation(
            embed,
            size=embed.output_size,
            feature_size=self.feature_size,
            likeness=self.likeness,
            generator=generator,
        )
        return AmortisedLearner(self, adaptation, problem, num_iterations)


@dataclass(frozen=True)
class MetaOptNetConfig(OuterConfig):
    """MetaOptNet: the best linear classifier of the examples' embeddings, a support vector machine or ridge regression.

    The embedding is learned through the optimum.
    """

    conv: ConvConfig = EMBEDDING
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

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> AmortisedLearner:
        embed = image_embedding(self, self.conv, problem, generator)
        head = Ridge(self.ridge) if self.head == "ridge" else SupportVectors(self.ridge, self.cost, self.num_steps)
        adaptation = ConvexHeadAdaptation(embed, head, size=embed.output_size)
        return AmortisedLearner(self, adaptation.to(generator.device), problem, num_iterations)


def image_embedding(
    config: OuterConfig, conv: ConvConfig, problem: Problem, generator: torch.Generator, *, maps: bool = False
) -> ConvNet:
    """A convolutional net from the problem's images to features, or to maps.

    Raises:
        ValueError: when the problem is not to tell classes of images apart, the net's output is not of that kind, or
            it would normalise queries by a support that they are embedded without.
    """
    name = type(config).__name__
    check_context(conv, name)
    if not isinstance(problem, Classification):
        raise ValueError(f"agent is {name}, which tells classes of images apart; this family has none")
    if (conv.output == "maps") != maps:
        allowed = "'maps'" if maps else "'flat' or 'mean'"
        raise ValueError(f"output is {conv.output!r}; {name} needs {allowed}")
    return ConvNet(conv, problem.image_shape, fused=True, generator=generator)
