"""Meta networks: fast weights from loss gradients, learned by the loss of the queries.

Munkhdalai, Yu. Meta networks (2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from metarl.adaptation.fast_weights import FastWeightAdaptation
from metarl.fewshot.embedding import EmbeddingConfig
from metarl.fewshot.problem import Classification
from metarl.nets.conv import ConvNet


@dataclass(frozen=True)
class MetaNetworkConfig(EmbeddingConfig):
    """Meta network: a slow net, and fast weights that learned nets make of its gradients."""

    hidden_size: int = 64  # of the linear layers that have fast weights
    scale: float = 0.02  # of fast weights, beside what the nets that make them say

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size < 1:
            raise ValueError(f"hidden_size is {self.hidden_size}; it must be at least 1")
        if self.scale <= 0:
            raise ValueError(f"scale is {self.scale}; it must be positive")

    def make_adaptation(self, embed: ConvNet, problem: Classification, generator: torch.Generator) -> nn.Module:
        return FastWeightAdaptation(
            embed,
            self.make_embedding(problem, generator),
            size=embed.output_size,
            hidden_size=self.hidden_size,
            ways=problem.ways,
            scale=self.scale,
            generator=generator,
        )
