"""Weights that a net writes for each class from the mean of its features: what FiLM, hypernetworks and VERSA share.

Requeima et al. Fast and flexible multi-task classification using conditional neural adaptive processes (2019), CNAPs.

The weights of a class are written from its own examples alone, by one net for all classes, so that there may be any
number of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metarl.checks import widths
from metarl.fewshot.embedding import EmbeddingConfig
from metarl.nets.mlp import mlp


class ClassWeights(nn.Module):
    """Weights and bias of each class in a linear layer [N, W, size + 1], from the mean of its features [N, W, size].

    As in CNAPs, a net says what to add to the mean itself, so that at first a query is of the class that it points to.
    """

    def __init__(self, size: int, hidden_size: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.net = mlp((size, hidden_size, size + 1), activation="relu", output_gain=0.1, generator=generator)

    def forward(self, means: Tensor) -> Tensor:
        return nn.functional.pad(means / means.shape[-1] ** 0.5, (0, 1)) + self.net(means)


def linear_logits(features: Tensor, weights: Tensor) -> Tensor:
    """Logits [N, Q, W] of features [N, Q, D] under weights and bias, in one, of each class [N, W, D + 1]."""
    return features @ weights[..., :-1].mT + weights[..., -1].unsqueeze(1)


@dataclass(frozen=True)
class WriterConfig(EmbeddingConfig):
    """What learners whose net is written for the task share."""

    hidden_size: int = 64  # hidden units of the nets that write weights, and of the layer that is written
    code_size: int = 64  # size of the code that summarises the task

    def __post_init__(self) -> None:
        super().__post_init__()
        widths(self, "hidden_size", "code_size")
