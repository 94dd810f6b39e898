"""A distribution over a classifier's last layer: predictions average over it, without random sampling.

A prediction is a mean of softmaxes over logits at fixed points of their distribution: the first 2^n points of a Sobol
sequence, which visit each of 2^n quantiles of every class's logit once. Classes are assigned to the sequence's axes in
the order of their mean logits, which makes predictions independent of class numbering. There is no random sampling,
neither in meta-training nor at meta-test. With few points some axes nearly coincide (with eight points, the first and
the fifth are equal), as if those classes' logits were fully correlated.

The loss is the negative log-likelihood of the queries under that mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from metarl.checks import rounds
from metarl.fewshot.embedding import EmbeddingConfig

UNLIKELY = -1e9  # logit of an unseen class, with a finite gradient


@dataclass(frozen=True)
class BayesianConfig(EmbeddingConfig):
    """The common settings of learners of a distribution over the last layer."""

    num_points: int = 32  # number of posterior points to average predictions over, a power of two; 0: only the mean

    def __post_init__(self) -> None:
        super().__post_init__()
        rounds(self, "num_points", minimum=0)
        if self.num_points & (self.num_points - 1):
            raise ValueError(f"num_points is {self.num_points}; must be 0 or a power of two")


def mean_of_softmaxes(logits: Tensor, order: Tensor, deviations: Tensor) -> Tensor:
    """The log of the mean softmax over points.

    logits [N, Q, W]: the mean logits; order [N, Q, W]: their order; deviations [points, N, Q, W]: deviations from them,
    in that order.
    """
    each = (logits.gather(-1, order) + deviations).log_softmax(-1)
    mean = each.logsumexp(0) - math.log(len(each))
    return torch.empty_like(mean).scatter(-1, order, mean)


def normal_points(num_points: int, like: Tensor) -> Tensor:
    """Points [num_points, W] of a standard normal distribution, one axis per class of `like` [..., W]."""
    return _points(num_points, like.shape[-1]).to(like)


@cache
def _points(num_points: int, size: int) -> Tensor:
    """These points in float64, computed once; so they are constants of an exported graph."""
    with torch.inference_mode(False):
        uniform = torch.quasirandom.SobolEngine(size).draw(num_points, dtype=torch.float64) + 0.5 / num_points
        return torch.special.ndtri(uniform)
