"""Few-shot learners with a distribution for each task: over the last layer's weights, or over the classes' means.

Gordon et al. Meta-learning probabilistic inference for prediction (2019), VERSA.
MacKay. A practical Bayesian framework for backpropagation networks (1992), for Laplace's approximation of a last layer.
Harrison, Sharma, Finn, Pavone. Continuous meta-learning without tasks (2020), for Gaussian prototypes.

What is minimised is the negative log-likelihood of the queries under the mean over the distribution, as in VERSA.

Deviations: those of metarl/adaptation/bayesian.py and gaussian_prototypes.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from metarl.adaptation.bayesian import AmortisedPosterior, LaplaceAdaptation
from metarl.adaptation.gaussian_prototypes import GaussianPrototypes
from metarl.fewshot.embedding import EmbeddingConfig
from metarl.fewshot.problem import Classification
from metarl.nets.conv import ConvNet


@dataclass(frozen=True)
class GaussianPrototypesConfig(EmbeddingConfig):
    """Gaussian prototypes: a class is a belief about the mean of its embeddings, the wider the fewer its examples."""

    def make_adaptation(self, embed: ConvNet, problem: Classification, generator: torch.Generator) -> nn.Module:
        return GaussianPrototypes(embed, size=embed.output_size)


@dataclass(frozen=True)
class BayesianConfig(EmbeddingConfig):
    """What learners of a distribution over the last layer share."""

    num_points: int = 32  # of the distribution, a power of two, that predictions are averaged over; 0: its mean alone

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_points < 0 or self.num_points & (self.num_points - 1):
            raise ValueError(f"num_points is {self.num_points}; allowed are 0 and powers of two")


@dataclass(frozen=True)
class VersaConfig(BayesianConfig):
    """VERSA: a net writes a Gaussian over the last layer's weights, class by class."""

    hidden_size: int = 64  # of the nets that write

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size < 1:
            raise ValueError(f"hidden_size is {self.hidden_size}; it must be at least 1")

    def make_adaptation(self, embed: ConvNet, problem: Classification, generator: torch.Generator) -> nn.Module:
        return AmortisedPosterior(
            embed,
            size=embed.output_size,
            hidden_size=self.hidden_size,
            num_points=self.num_points,
            generator=generator,
        )


@dataclass(frozen=True)
class LaplaceConfig(BayesianConfig):
    """Laplace: the likeliest last layer for the examples, and the Gaussian of its weights around it."""

    num_steps: int = 8  # of Newton's method

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_steps < 1:
            raise ValueError(f"num_steps is {self.num_steps}; it must be at least 1")

    def make_adaptation(self, embed: ConvNet, problem: Classification, generator: torch.Generator) -> nn.Module:
        return LaplaceAdaptation(embed, size=embed.output_size, num_points=self.num_points, num_steps=self.num_steps)
