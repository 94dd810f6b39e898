"""Gaussian prototypes: an exact Gaussian posterior over each class's mean in a learned embedding.

Harrison, Sharma, Finn, Pavone. Continuous meta-learning without tasks (2020), their PCOC.
Zhang et al. Shallow Bayesian meta learning for real-world few-shot recognition (2021), MetaQDA.

Class means are drawn from a Gaussian, and embeddings of a class from a Gaussian around its mean; both have learned
diagonal variances. The posterior of a mean and the predictive distribution of an embedding are then Gaussians too,
wider with fewer examples. Class probabilities are proportional to the query's predictive density; the queries' negative
log-likelihood is minimised.

Deviations: 1. PCOC learns only the variances of embeddings; here also those of means, and their centre; 2. classes are
equally frequent and share a covariance; MetaQDA's have their own.
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
    """A class is a Gaussian posterior over the mean of its embeddings.

    embed: images [N, K, ...] -> [N, K, D].
    """

    def __init__(self, embed: ConvNet) -> None:
        super().__init__()
        self.embed, size = embed, embed.output_size
        self.centre = nn.Parameter(torch.zeros(size))  # centre of the class means
        self.log_spread = nn.Parameter(torch.zeros(size))  # log variance of class means
        self.log_noise = nn.Parameter(torch.zeros(size))  # log variance of embeddings around their class mean

    def prior(self, num_tasks: int) -> ClassSums:
        return ClassSums.empty(num_tasks, len(self.centre), self.centre)

    def adapt(self, state: ClassSums, context: Examples) -> ClassSums:
        """The sums, including the examples of context [N, K, ...]."""
        return state.append(self.embed(context.x), context.y, context.valid)

    def belief(self, state: ClassSums) -> tuple[Tensor, Tensor]:
        """Posterior mean and variance of each class's mean: [N, W, size] each."""
        spread, noise = self.log_spread.exp(), self.log_noise.exp()
        precision = 1 / spread + state.count.unsqueeze(-1) / noise
        return (self.centre / spread + state.total / noise) / precision, 1 / precision

    def predict(self, state: ClassSums, x: Tensor) -> Tensor:
        """Log-likelihoods [N, Q, W], up to a constant, of queries x [N, Q, ...] under each class."""
        query = self.embed(x)
        mean, variance = self.belief(state)
        variance = variance + self.log_noise.exp()
        weight = 1 / variance
        squared = query.square() @ weight.mT - 2 * query @ (mean * weight).mT
        constant = (mean.square() * weight + variance.log()).sum(-1).unsqueeze(1)
        return state.mask_unseen(-(squared + constant) / 2)


@dataclass(frozen=True)
class GaussianPrototypesConfig(EmbeddingConfig):
    """Gaussian prototypes: a class is a Gaussian posterior over the mean of its embeddings."""

    def make_adaptation(
        self, embed: ConvNet, problem: Classification, generator: torch.Generator
    ) -> GaussianPrototypes:
        return GaussianPrototypes(embed)
