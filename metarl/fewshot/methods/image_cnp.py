"""Conditional neural process for images: the mean of an encoding of each labelled image, read beside a query's.

Garnelo et al. Conditional neural processes (2018), section 4.3, for one-shot classification.

Deviations: 1. the encodings of all classes are averaged into one vector, instead of one vector for each class; so that
nothing but the encoder tells classes apart, and labels that never change can be memorised. 2. labels are scaled to the
norm of an image's features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metarl.adaptation.context import Belief, ContextAdaptation
from metarl.checks import not_empty, widths
from metarl.fewshot.amortised import ExampleAdaptation
from metarl.fewshot.embedding import EmbeddingConfig
from metarl.fewshot.problem import Classification
from metarl.fewshot.seen_classes import one_hot
from metarl.nets.conv import ConvNet
from metarl.nets.mlp import mlp
from metarl.records import Examples


@dataclass(frozen=True)
class ImageCNPConfig(EmbeddingConfig):
    """Conditional neural process for images: the mean of an encoding of each labelled image."""

    hidden_sizes: tuple[int, ...] = (128, 128)  # hidden layers of the encoder and of the head
    latent_size: int = 128  # size of the latent of each task

    def __post_init__(self) -> None:
        super().__post_init__()
        not_empty(self, "hidden_sizes")
        widths(self, "hidden_sizes", "latent_size")

    def make_adaptation(self, embed: ConvNet, problem: Classification, generator: torch.Generator) -> ImageCNP:
        return ImageCNP(self, embed, problem.ways, generator)


class ImageCNP(ExampleAdaptation[Belief]):
    """An embedding net, an encoder of its features with a label, and a head that reads the mean and a query's features.

    embed: the embedding net, of flat features.
    """

    def __init__(self, config: ImageCNPConfig, embed: ConvNet, ways: int, generator: torch.Generator) -> None:
        super().__init__()
        size = embed.output_size
        settings: Any = {"activation": "relu", "output_gain": 1.0, "generator": generator}
        encoder = mlp((size + ways, *config.hidden_sizes, config.latent_size), **settings)
        self.embed, self.ways = embed, ways
        self.label_length = math.sqrt(size / 2)  # the norm of `size` rectified unit normals
        self.context = ContextAdaptation(
            encoder,
            _Head(mlp((config.latent_size + size, *config.hidden_sizes, ways), **settings)),
            latent_size=config.latent_size,
            aggregation="mean",
            device=generator.device,
        )

    def prior(self, num_tasks: int) -> Belief:
        return self.context.prior(num_tasks)

    def adapt(self, state: Belief, context: Examples) -> Belief:
        """The sums of encodings, with those of the examples of context [N, K, ...].

        Raises:
            ValueError: when there are more classes than the head has outputs.
        """
        ways = int(context.y.max()) + 1
        if ways > self.ways:
            raise ValueError(f"ways is {ways}; this learner's net has outputs for {self.ways}")
        features = self.embed(context.x)
        label = self.label_length * one_hot(context.y, self.ways).to(features.dtype)
        return self.context.adapt(state, torch.cat([features, label], -1), context.valid)

    def predict(self, state: Belief, x: Tensor) -> Tensor:
        """Logits [N, Q, W] for queries x [N, Q, ...]."""
        return self.context.predict(state, self.embed(x))


class _Head(nn.Module):
    """Logits for the features of a query given the latent."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, latent: Tensor, features: Tensor) -> Tensor:
        return self.net(torch.cat([latent, features], -1))
