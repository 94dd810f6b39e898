"""A distribution over a classifier's last layer: queries are answered by the mean over it, without random draws.

A prediction is a mean of softmaxes over logits at fixed points of their distribution: the first 2^n of a Sobol
sequence, whose values in each class are so many quantiles, each once. Classes take the sequence's axes by the order of
their mean logits, so that their numbers mean nothing. No draw is random, in meta-training and at meta-test alike. With
few points some axes are nearly alike (of eight points, the first and the fifth are the same), as if those classes'
logits rose and fell together.

What is minimised is the negative log-likelihood of the queries under that mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.checks import rounds
from metarl.fewshot.embedding import EmbeddingConfig

UNLIKELY = -1e9  # logit of a class that was not seen, whose gradient is finite


@dataclass(frozen=True)
class BayesianConfig(EmbeddingConfig):
    """What learners of a distribution over the last layer share."""

    num_points: int = 32  # points of the posterior to average predictions over, a power of two; 0: its mean alone

    def __post_init__(self) -> None:
        super().__post_init__()
        rounds(self, "num_points", minimum=0)
        if self.num_points & (self.num_points - 1):
            raise ValueError(f"num_points is {self.num_points}; allowed are 0 and powers of two")


def mean_of_softmaxes(logits: Tensor, order: Tensor, deviations: Tensor) -> Tensor:
    """The logarithm of the mean of softmaxes over points.

    logits [N, Q, W], mean ones; order [N, Q, W]: their order; deviations [points, N, Q, W] from them, in that order.
    """
    each = (logits.gather(-1, order) + deviations).log_softmax(-1)
    mean = each.logsumexp(0) - math.log(len(each))
    return torch.empty_like(mean).scatter(-1, order, mean)


def normal_points(num_points: int, like: Tensor) -> Tensor:
    """Points [num_points, W] of a standard normal distribution in as many axes as `like` [..., W] has classes."""
    engine = torch.quasirandom.SobolEngine(like.shape[-1])
    uniform = engine.draw(num_points, dtype=torch.float64) + 0.5 / num_points
    return torch.special.ndtri(uniform).to(like)
