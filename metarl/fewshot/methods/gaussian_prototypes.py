"""Gaussian prototypes: a belief about each class's mean in a learned embedding; all that follows is exact.

Harrison, Sharma, Finn, Pavone. Continuous meta-learning without tasks (2020), their PCOC.
Zhang et al. Shallow Bayesian meta learning for real-world few-shot recognition (2021), MetaQDA.

A class's mean is drawn from a Gaussian, and its examples' embeddings from one around it; both are learned, with
variances along each axis. What is believed of a mean after some examples, and of an embedding whose class this is, are
Gaussians again: the fewer examples, the wider. Class probabilities are in proportion to those of the query, whose
negative log-likelihood is minimised.

Deviations: 1. PCOC learns the variances of embeddings alone; here those of means too, and their centre; 2. classes are
equally frequent; MetaQDA's have covariances of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metarl.fewshot.amortised import ExampleAdaptation
from metarl.fewshot.embedding import EmbeddingConfig
from metarl.fewshot.problem import Classification
from metarl.fewshot.seen_classes import ClassSums
from metarl.nets.conv import ConvNet
from metarl.records import Examples


class GaussianPrototypes(ExampleAdaptation[ClassSums]):
    """A class is a Gaussian belief about the mean of its embeddings.

    embed: images [N, K, ...] -> [N, K, size].
    """

    def __init__(self, embed: nn.Module, *, size: int) -> None:
        super().__init__()
        self.embed = embed
        self.centre = nn.Parameter(torch.zeros(size))  # of the means
        self.log_spread = nn.Parameter(torch.zeros(size))  # logarithm of the variance of means
        self.log_noise = nn.Parameter(torch.zeros(size))  # and of embeddings around theirs

    def prior(self, num_tasks: int) -> ClassSums:
        return ClassSums.empty(num_tasks, len(self.centre), self.centre)

    def adapt(self, state: ClassSums, context: Examples) -> ClassSums:
        """The sums with the examples of context [N, K, ...] added."""
        return state.append(self.embed(context.x), context.y, context.valid)

    def belief(self, state: ClassSums) -> tuple[Tensor, Tensor]:
        """Mean and variance of each class's mean, [N, W, size]."""
        spread, noise = self.log_spread.exp(), self.log_noise.exp()
        precision = 1 / spread + state.count.unsqueeze(-1) / noise
        return (self.centre / spread + state.total / noise) / precision, 1 / precision

    def predict(self, state: ClassSums, x: Tensor) -> Tensor:
        """Log-likelihoods [N, Q, W], less a constant, of queries x [N, Q, ...] that would be of a class."""
        query = self.embed(x)
        mean, variance = self.belief(state)
        variance = variance + self.log_noise.exp()
        weight = 1 / variance
        squared = query.square() @ weight.mT - 2 * query @ (mean * weight).mT
        constant = (mean.square() * weight + variance.log()).sum(-1).unsqueeze(1)
        return state.mask_unseen(-(squared + constant) / 2)


@dataclass(frozen=True)
class GaussianPrototypesConfig(EmbeddingConfig):
    """Gaussian prototypes: a class is a belief about the mean of its embeddings, the wider the fewer its examples."""

    def make_adaptation(
        self, embed: ConvNet, problem: Classification, generator: torch.Generator
    ) -> GaussianPrototypes:
        return GaussianPrototypes(embed, size=embed.output_size)
