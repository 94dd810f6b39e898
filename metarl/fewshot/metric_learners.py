"""Few-shot learners that compare examples: prototypical networks.

Snell, Swersky, Zemel. Prototypical networks for few-shot learning (2017).

Deviations: 1. support and queries are embedded apart, so that running statistics see them one after the other; the
published code normalises both together in meta-training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarl.adaptation.metric import Distance, PrototypeAdaptation
from metarl.convnets import ConvConfig, ConvNet
from metarl.fewshot.amortised import AmortisedLearner, OuterConfig
from metarl.fewshot.problem import Classification, Problem

EMBEDDING = ConvConfig(normalisation="running")


@dataclass(frozen=True)
class PrototypicalConfig(OuterConfig):
    """Prototypical network: a class is the mean of its examples' embeddings."""

    conv: ConvConfig = EMBEDDING
    distance: Distance = "euclidean"

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> AmortisedLearner:
        embed = image_embedding(self, self.conv, problem, generator)
        adaptation = PrototypeAdaptation(embed, size=embed.output_size, distance=self.distance)
        return AmortisedLearner(self, adaptation.to(generator.device), problem, num_iterations)


def image_embedding(config: OuterConfig, conv: ConvConfig, problem: Problem, generator: torch.Generator) -> ConvNet:
    """A convolutional net for the problem's images.

    Raises:
        ValueError: when the problem is not to tell classes of images apart.
    """
    if not isinstance(problem, Classification):
        raise ValueError(f"agent is {type(config).__name__}, which tells classes of images apart; this family has none")
    return ConvNet(conv, problem.image_shape, fused=True, generator=generator)
