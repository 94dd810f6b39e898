"""Weights generated per class from the mean of its features: the common part of FiLM, hypernetworks and VERSA.

Requeima et al. Fast and flexible multi-task classification using conditional neural adaptive processes (2019), CNAPs.

The weights of a class are generated from its own examples only, by one net for all classes, so the number of classes is
arbitrary.
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

    As in CNAPs, a net outputs a residual on the mean itself; before training, a query belongs to the class whose mean
    it is most aligned with.
    """

    def __init__(self, size: int, hidden_size: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.net = mlp((size, hidden_size, size + 1), activation="relu", output_gain=0.1, generator=generator)

    def forward(self, means: Tensor) -> Tensor:
        return nn.functional.pad(means / means.shape[-1] ** 0.5, (0, 1)) + self.net(means)


def linear_logits(features: Tensor, weights: Tensor) -> Tensor:
    """Logits [N, Q, W] of features [N, Q, D] under each class's weights and bias, concatenated: [N, W, D + 1]."""
    return features @ weights[..., :-1].mT + weights[..., -1].unsqueeze(1)


@dataclass(frozen=True)
class WriterConfig(EmbeddingConfig):
    """The common settings of learners that generate weights per task."""

    hidden_size: int = 64  # number of hidden units of the generating nets and of the generated layer
    code_size: int = 64  # size of the code that summarises the task

    def __post_init__(self) -> None:
        super().__post_init__()
        widths(self, "hidden_size", "code_size")
