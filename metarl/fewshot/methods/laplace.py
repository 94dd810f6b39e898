"""Laplace approximation of a last layer: the MAP weights given the examples, and a Gaussian around them.

MacKay. A practical Bayesian framework for backpropagation networks (1992).
Rasmussen, Williams. Gaussian processes for machine learning (2006), section 3.5: the Laplace approximation for softmax.

Predictions average over the Gaussian (metarl/fewshot/last_layer.py).

Deviations: 1. the weights have no bias; each Newton step is followed by a line search; 2. the covariance is multiplied
by a learned temperature, which starts at .01: after one example the class is nearly certain, so the curvature is almost
zero and the Gaussian would be as wide as the prior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metarl.checks import rounds
from metarl.fewshot.amortised import ExampleAdaptation
from metarl.fewshot.last_layer import UNLIKELY, BayesianConfig, mean_of_softmaxes, normal_points
from metarl.fewshot.problem import Classification
from metarl.fewshot.seen_classes import EmbeddedExamples
from metarl.nets.conv import ConvNet
from metarl.records import Examples, Record

_INITIAL_TEMPERATURE = 0.01  # factor on the covariance before any training
_RATE = 10.0  # learning rate of the log prior variance and log temperature, relative to the weights'
_FRACTIONS = (1.0, 0.5, 0.25, 0.1, 0.02)  # fractions of a Newton step tried in the line search


@dataclass(frozen=True)
class Mode(Record):
    """The examples, and the curvature at their MAP logits."""

    seen: EmbeddedExamples
    residual: Tensor  # [N, K, W] float64, one-hot labels minus probabilities
    precision: Tensor  # [N, W, K, K] float64, precision of the equivalent Gaussian observation of the logits


class LaplaceAdaptation(ExampleAdaptation[Mode]):
    """A softmax layer's MAP weights under a Gaussian prior, and the Gaussian around them.

    Both are computed exactly in the dual, whose size is the number of examples, and in float64: float32 loses all
    digits if the prior is much wider than a logit's noise. The prior's variance and the embedding are learned through
    the averaged predictions.

    embed, num_points: as in `AmortisedPosterior`. num_steps: steps of Newton's method.
    """

    def __init__(self, embed: ConvNet, *, num_points: int, num_steps: int) -> None:
        super().__init__()
        self.embed, self.num_points, self.num_steps = embed, num_points, num_steps
        self.scaled_log_variance = nn.Parameter(torch.tensor(math.log(1000 / embed.output_size) / _RATE))
        if num_points:
            self.scaled_log_temperature = nn.Parameter(torch.tensor(_INITIAL_TEMPERATURE).log() / _RATE)

    @property
    def variance(self) -> Tensor:
        """The prior's variance."""
        return (_RATE * self.scaled_log_variance).exp()

    @property
    def temperature(self) -> Tensor:
        """The factor on the covariance."""
        return (_RATE * self.scaled_log_temperature).exp()

    def prior(self, num_tasks: int) -> Mode:
        seen = EmbeddedExamples.empty(num_tasks, self.embed.output_size, self.scaled_log_variance)
        empty = seen.x.new_zeros(num_tasks, 0, 0, dtype=torch.float64)
        return Mode(seen, empty, empty.unsqueeze(-1))

    def adapt(self, state: Mode, context: Examples) -> Mode:
        """The Gaussian for the examples of context [N, K, ...] and all earlier ones."""
        seen = state.seen.append(self.embed(context.x), context.y, context.valid)
        x, member = seen.x.double(), seen.member
        gram = self.variance * x @ x.mT
        with torch.no_grad():
            dual = map_estimate(gram, member, self.num_steps)
        dual, _, _ = newton_step(gram, member, gram @ dual)  # at the optimum, a single step carries the full derivative
        _, residual, precision = newton_step(gram, member, gram @ dual)
        return Mode(seen, residual, precision)

    def predict(self, state: Mode, x: Tensor) -> Tensor:
        """Log-probabilities [N, Q, W] for queries x [N, Q, ...]; if num_points is 0, the MAP weights' logits."""
        features = self.embed(x)
        query = features.double()
        cross = self.variance * query @ state.seen.x.double().mT  # [N, Q, K]
        logits = cross @ state.residual
        if not self.num_points:
            return state.seen.mask_unseen(logits.to(features))
        own = self.variance * query.square().sum(-1)  # [N, Q]
        covariance = self.temperature * _covariance(cross, own, state.precision)
        seen = state.seen.member.any(1).unsqueeze(1)  # [N, 1, W]
        logits = torch.where(seen, logits, UNLIKELY)
        order = logits.sort(dim=-1, descending=True, stable=True).indices
        across = order.unsqueeze(-1).expand(covariance.shape)
        covariance = covariance.gather(-2, across).gather(-1, across.mT)
        root = torch.linalg.cholesky(covariance)
        points = normal_points(self.num_points, logits)  # [points, W]
        deviations = (root @ points.T).movedim(-1, 0)  # [points, N, Q, W]
        return state.seen.mask_unseen(mean_of_softmaxes(logits, order, deviations).to(features))


def map_estimate(gram: Tensor, member: Tensor, num_steps: int) -> Tensor:
    """The dual variables a [N, K, W] of the MAP logits gram @ a, by Newton's method from zero.

    gram [N, K, K]: the prior covariance of logits. member [N, K, W] bool: the class of each example. Each step takes
    the fraction with the highest posterior density.
    """
    fractions = torch.tensor(_FRACTIONS, dtype=gram.dtype, device=gram.device)[:, None, None, None]
    competing = member.any(1, keepdim=True)
    dual = torch.zeros_like(member, dtype=gram.dtype)
    tasks = torch.arange(len(gram), device=gram.device)
    for _ in range(num_steps):
        ahead, _, _ = newton_step(gram, member, gram @ dual)
        choices = dual + fractions * (ahead - dual)  # [fractions, N, K, W]
        logits = gram @ choices
        log_prob = logits.masked_fill(~competing, -torch.inf).log_softmax(-1).masked_fill(~member, 0.0)
        best = (log_prob - choices * logits / 2).sum((-2, -1)).argmax(0)
        dual = choices[best, tasks]
    return dual


def newton_step(gram: Tensor, member: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One step of Newton's method from logits [N, K, W] of the examples; see `map_estimate`.

    Returns the dual variables of the new logits, and `Mode`'s residual and precision at the old ones. Rasmussen and
    Williams, algorithm 3.3.
    """
    target = member.to(gram.dtype)
    competing = member.any(1, keepdim=True)
    probability = logits.masked_fill(~competing, -torch.inf).softmax(-1)
    residual = target - probability
    diagonal = torch.diag_embed(probability.mT)  # [N, W, K, K]
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    precision = torch.linalg.solve(eye + diagonal @ gram.unsqueeze(1), diagonal)
    b = probability * logits - probability * (probability * logits).sum(-1, keepdim=True) + residual  # [N, K, W]
    c = (precision @ (gram @ b).mT.unsqueeze(-1)).squeeze(-1)  # [N, W, K]
    shared = torch.linalg.solve(precision.sum(1), c.sum(1))  # [N, K]
    dual = b - c.mT + (precision @ shared[:, None, :, None]).squeeze(-1).mT
    return dual, residual, precision


def _covariance(cross: Tensor, own: Tensor, precision: Tensor) -> Tensor:
    """The covariance [N, Q, W, W] of a query's logits.

    own [N, Q]: prior variances; cross [N, Q, K]: prior covariances with the examples. Rasmussen and Williams, algorithm
    3.4.
    """
    explained = cross.unsqueeze(1) @ precision  # [N, W, Q, K]
    each = own.unsqueeze(1) - (explained * cross.unsqueeze(1)).sum(-1)  # [N, W, Q]
    shared = torch.linalg.solve(precision.sum(1).unsqueeze(1), explained.mT)  # [N, W, K, Q]
    between = torch.einsum("nvqk,nwkq->nqvw", explained, shared)
    slack = 1e-5 * own.unsqueeze(1) + 1e-6  # rounding may make a variance negative
    return (between + between.mT) / 2 + torch.diag_embed((each.clamp(min=0) + slack).movedim(1, -1))


@dataclass(frozen=True)
class LaplaceConfig(BayesianConfig):
    """Laplace: the MAP last layer given the examples, and a Gaussian around its weights."""

    num_steps: int = 8  # number of steps of Newton's method

    def __post_init__(self) -> None:
        super().__post_init__()
        rounds(self, "num_steps")

    def make_adaptation(self, embed: ConvNet, problem: Classification, generator: torch.Generator) -> LaplaceAdaptation:
        return LaplaceAdaptation(embed, num_points=self.num_points, num_steps=self.num_steps)
