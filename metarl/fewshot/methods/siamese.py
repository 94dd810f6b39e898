"""Siamese networks: the state is the embedded examples; a net decides whether two images are of one class.

Koch, Zemel, Salakhutdinov. Siamese neural networks for one-shot image recognition (2015).

Deviations: 1. pairs are made of an episode's queries and its classes, not drawn from all classes; as published, same
and different pairs have equal total weight; 2. with several shots, a class is scored as at meta-test, by its most
similar example or by all; with one shot, this is each pair; 3. the net differs, Adam replaces momenta per layer, and
images are not distorted; 4. differences count from a learned threshold, which is equivalent to a bias; if a bias grew
from zero, the embedding would shrink first; 5. support and queries are embedded separately, so running statistics are
updated by one, then the other; the published code normalises both together in meta-training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from metarl.checks import widths
from metarl.fewshot.amortised import ExampleAdaptation
from metarl.fewshot.embedding import EmbeddingConfig
from metarl.fewshot.problem import Classification, Problem
from metarl.fewshot.seen_classes import EmbeddedExamples
from metarl.nets.conv import ConvNet
from metarl.nets.mlp import linear
from metarl.records import Examples

Similarity = Literal["best", "mean"]
_TYPICAL_DIFFERENCE = 0.15  # mean difference of a sigmoid's values for two images in an untrained net


class SiameseAdaptation(ExampleAdaptation[EmbeddedExamples]):
    """Log odds that two images are of one class, from a weighted sum of the differences between their features.

    embed: images [N, K, ...] -> [N, K, D], followed by a layer of `feature_size` sigmoids, whose differences are
    used.
    similarity: a query's similarity to a class: that to the most similar example, or the mean over examples.
    """

    def __init__(
        self, embed: ConvNet, *, feature_size: int, similarity: Similarity, generator: torch.Generator
    ) -> None:
        super().__init__()
        if similarity not in get_args(Similarity):
            raise ValueError(f"similarity is {similarity!r}; must be one of {', '.join(get_args(Similarity))}")
        self.feature_size, self.similarity = feature_size, similarity
        self.embed = nn.Sequential(
            embed, linear(embed.output_size, feature_size, gain=1.0, generator=generator), nn.Sigmoid()
        )
        self.weight = nn.Parameter(torch.full((feature_size,), -(feature_size**-0.5), device=generator.device))
        self.threshold = nn.Parameter(torch.full((), _TYPICAL_DIFFERENCE, device=generator.device))

    def prior(self, num_tasks: int) -> EmbeddedExamples:
        return EmbeddedExamples.empty(num_tasks, self.feature_size, self.weight)

    def adapt(self, state: EmbeddedExamples, context: Examples) -> EmbeddedExamples:
        """The earlier examples and those of context [N, K, ...]."""
        return state.append(self.embed(context.x), context.y, context.valid)

    def predict(self, state: EmbeddedExamples, x: Tensor) -> Tensor:
        """Log odds [N, Q, W] that queries x [N, Q, ...] are of a class.

        If same and different pairs have equal weight, the odds are likelihood ratios, so their softmax gives class
        probabilities.
        """
        difference = (self.embed(x).unsqueeze(2) - state.x.unsqueeze(1)).abs()  # [N, Q, K, feature_size]
        pairs = ((difference - self.threshold) @ self.weight).unsqueeze(2)  # [N, Q, 1, K]
        member = state.member.mT.unsqueeze(1)  # [N, 1, W, K]
        if self.similarity == "best":
            return pairs.masked_fill(~member, -torch.inf).amax(-1)
        share = member / member.sum(-1, keepdim=True).clamp(min=1)
        return state.mask_unseen((pairs * share).sum(-1))

    def criterion(self, problem: Problem) -> Callable[[Tensor, Tensor], Tensor]:
        return self.losses

    def losses(self, prediction: Tensor, y: Tensor) -> Tensor:
        """The negative log-likelihood [N, Q] of same and different pairs, each with weight one half."""
        same = prediction.gather(-1, y.unsqueeze(-1)).squeeze(-1)
        different = nn.functional.softplus(prediction).sum(-1) - nn.functional.softplus(same)
        num_others = (prediction.isfinite().sum(-1) - 1).clamp(min=1)
        return (nn.functional.softplus(-same) + different / num_others) / 2


@dataclass(frozen=True)
class SiameseConfig(EmbeddingConfig):
    """Siamese network: log odds that two images are of one class, from differences between their features."""

    feature_size: int = 256  # number of features that are compared
    similarity: Similarity = "best"  # similarity to a class: to its most similar example, or the mean over all

    def __post_init__(self) -> None:
        super().__post_init__()
        widths(self, "feature_size")

    def make_adaptation(self, embed: ConvNet, problem: Classification, generator: torch.Generator) -> SiameseAdaptation:
        return SiameseAdaptation(
            embed,
            feature_size=self.feature_size,
            similarity=self.similarity,
            generator=generator,
        )
