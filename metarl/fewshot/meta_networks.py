"""Meta networks: fast weights from loss gradients, learned by the loss of the queries.

Munkhdalai, Yu. Meta networks (2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarl.adaptation.fast_weights import FastWeightAdaptation
from metarl.convnets import ConvConfig
from metarl.fewshot.amortised import AmortisedLearner
from metarl.fewshot.metric_learners import EMBEDDING, image_embedding
from metarl.fewshot.outer_step import OuterConfig
from metarl.fewshot.problem import Classification, Problem


@dataclass(frozen=True)
class MetaNetworkConfig(OuterConfig):
    """Meta network: a slow net, and fast weights that learned nets make of its gradients."""

    conv: ConvConfig = EMBEDDING
    hidden_size: int = 64  # of the linear layers that have fast weights
    scale: float = 0.02  # of fast weights, beside what the nets that make them say

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size < 1:
            raise ValueError(f"hidden_size is {self.hidden_size}; it must be at least 1")
        if self.scale <= 0:
            raise ValueError(f"scale is {self.scale}; it must be positive")

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> AmortisedLearner:
        key_net, net = (image_embedding(self, self.conv, problem, generator) for _ in range(2))
        assert isinstance(problem, Classification)
        adaptation = FastWeightAdaptation(
            key_net,
            net,
            size=net.output_size,
            hidden_size=self.hidden_size,
            ways=problem.ways,
            scale=self.scale,
            generator=generator,
        )
        return AmortisedLearner(self, adaptation, problem, num_iterations)
