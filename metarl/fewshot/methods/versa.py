"""VERSA: a net generates a Gaussian over the last layer's weights, class by class.

Gordon et al. Meta-learning probabilistic inference for prediction (2019).

Predictions average over the Gaussian (metarl/fewshot/last_layer.py).

Deviations: 1. VERSA samples weights at random; logits under independent Gaussian weights are independent Gaussians too,
so fixed points are taken there; 2. its net outputs a residual on the mean of a class's features
(metarl/fewshot/written_weights.py), and does not see the number of shots.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.checks import widths
from metarl.fewshot.amortised import ExampleAdaptation
from metarl.fewshot.last_layer import UNLIKELY, BayesianConfig, mean_of_softmaxes, normal_points
from metarl.fewshot.problem import Classification
from metarl.fewshot.seen_classes import ClassSums
from metarl.fewshot.written_weights import ClassWeights, linear_logits
from metarl.nets.conv import ConvNet
from metarl.nets.mlp import mlp
from metarl.records import Examples, Record

_INITIAL_LOG_VARIANCE = -5.0  # log variance of a weight before any training


@dataclass(frozen=True)
class GaussianWeights(Record):
    """Sums over each class's examples, and the distribution of its weights and bias."""

    seen: ClassSums
    mean: Tensor  # [N, W, D + 1]
    variance: Tensor  # [N, W, D + 1]


class AmortisedPosterior(ExampleAdaptation[GaussianWeights]):
    """Independent Gaussians over a last layer's weights, generated from the mean features of each class (VERSA).

    embed: images [N, K, ...] -> [N, K, D]. num_points: the number of points of the distribution over which
    predictions are averaged, a power of two; 0: only the mean weights, a plain softmax layer.
    """

    def __init__(self, embed: ConvNet, *, hidden_size: int, num_points: int, generator: torch.Generator) -> None:
        super().__init__()
        self.embed, self.num_points = embed, num_points
        size = embed.output_size
        self.mean = ClassWeights(size, hidden_size, generator=generator)
        if num_points:
            sizes = (size, hidden_size, size + 1)
            self.log_variance = mlp(sizes, activation="relu", output_gain=0.1, generator=generator)
            list(self.log_variance.parameters())[-1].data.fill_(_INITIAL_LOG_VARIANCE)

    def prior(self, num_tasks: int) -> GaussianWeights:
        return self._written(ClassSums.empty(num_tasks, self.embed.output_size, next(self.parameters())))

    def adapt(self, state: GaussianWeights, context: Examples) -> GaussianWeights:
        """The weights for the examples of context [N, K, ...] and all earlier ones."""
        return self._written(state.seen.append(self.embed(context.x), context.y, context.valid))

    def predict(self, state: GaussianWeights, x: Tensor) -> Tensor:
        """Log-probabilities [N, Q, W] for queries x [N, Q, ...]; if num_points is 0, logits."""
        features = self.embed(x)
        logits = linear_logits(features, state.mean)
        if not self.num_points:
            return state.seen.mask_unseen(logits)
        logits = torch.where(state.seen.count.unsqueeze(1) > 0, logits, UNLIKELY)
        variance = linear_logits(features.square(), state.variance)
        order = logits.sort(dim=-1, descending=True, stable=True).indices
        points = normal_points(self.num_points, logits)[:, None, None]  # [points, 1, 1, W]
        deviations = variance.gather(-1, order).sqrt() * points
        return state.seen.mask_unseen(mean_of_softmaxes(logits, order, deviations))

    def _written(self, seen: ClassSums) -> GaussianWeights:
        means = seen.means
        mean = self.mean(means)
        return GaussianWeights(
            seen, mean, self.log_variance(means).exp() if self.num_points else torch.zeros_like(mean)
        )


@dataclass(frozen=True)
class VersaConfig(BayesianConfig):
    """VERSA: a net generates a Gaussian over the last layer's weights, class by class."""

    hidden_size: int = 64  # number of hidden units of the nets that generate the last layer

    def __post_init__(self) -> None:
        super().__post_init__()
        widths(self, "hidden_size")

    def make_adaptation(
        self, embed: ConvNet, problem: Classification, generator: torch.Generator
    ) -> AmortisedPosterior:
        return AmortisedPosterior(
            embed,
            hidden_size=self.hidden_size,
            num_points=self.num_points,
            generator=generator,
        )
