"""FiLM: a net generates, per task, scales and shifts of another net's features, and its last layer.

Perez et al. FiLM: visual reasoning with a general conditioning layer (2018).
Requeima et al. Fast and flexible multi-task classification using conditional neural adaptive processes (2019), CNAPs.

Deviations: 1. there is no pre-training: embedding, encoder and generators are learned together; 2. scales and shifts of
all blocks are generated at once, without CNAPs' auto-regression over blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metarl.checks import MOST_BLOCKS, at_least
from metarl.fewshot.amortised import ExampleAdaptation
from metarl.fewshot.problem import Classification
from metarl.fewshot.seen_classes import ClassSums, EmbeddedExamples
from metarl.fewshot.written_weights import ClassWeights, WriterConfig, linear_logits
from metarl.nets.conv import ConvNet
from metarl.nets.mlp import mlp
from metarl.records import Examples, Record


@dataclass(frozen=True)
class FilmState(Record):
    """The examples, and the scales, shifts and last layer generated from them."""

    seen: EmbeddedExamples  # raw images, [N, K, C * H * W]
    film: Tensor  # [N, blocks, 2, F], scales minus one, and shifts, of each block's features
    weights: Tensor  # [N, W, D + 1], weights and bias of each class


class FilmAdaptation(ExampleAdaptation[FilmState]):
    """A net whose blocks are scaled and shifted per task, with a last layer generated class by class.

    embed: the net. encoder: images [N, K, ...] -> [N, K, code_size]; the mean over examples is the task's code.
    """

    def __init__(
        self,
        embed: ConvNet,
        encoder: nn.Module,
        *,
        image_shape: tuple[int, ...],
        code_size: int,
        hidden_size: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.embed, self.encoder, self.image_shape = embed, encoder, image_shape
        self.film_shape = (embed.config.num_blocks, 2, embed.config.filters)
        size = self.film_shape[0] * 2 * self.film_shape[2]
        self.film = mlp((code_size, hidden_size, size), activation="relu", output_gain=0.1, generator=generator)
        self.head = ClassWeights(embed.output_size, hidden_size, generator=generator)

    @property
    def adapted_parameters(self) -> int:
        """The number of parameters generated per task."""
        return torch.Size(self.film_shape).numel()

    def prior(self, num_tasks: int) -> FilmState:
        like = next(self.parameters())
        seen = EmbeddedExamples.empty(num_tasks, torch.Size(self.image_shape).numel(), like)
        weights = like.new_zeros(num_tasks, 0, self.embed.output_size + 1)
        return FilmState(seen, like.new_zeros(num_tasks, *self.film_shape), weights)

    def adapt(self, state: FilmState, context: Examples) -> FilmState:
        """The net for the examples of context [N, K, C, H, W] and all earlier ones."""
        seen = state.seen.append(context.x.flatten(2), context.y, context.valid)
        images = seen.x.unflatten(2, self.image_shape)
        counted = seen.valid.unsqueeze(-1)
        code = (self.encoder(images) * counted).sum(1) / counted.sum(1).clamp(min=1)
        film = self.film(code).unflatten(1, self.film_shape)
        features = self._embedded(images, film)
        sums = ClassSums.empty(len(features), features.shape[-1], features).append(features, seen.y, seen.valid)
        return FilmState(seen, film, self.head(sums.means))

    def predict(self, state: FilmState, x: Tensor) -> Tensor:
        """Logits [N, Q, W] for queries x [N, Q, C, H, W]."""
        return state.seen.mask_unseen(linear_logits(self._embedded(x, state.film), state.weights))

    def _embedded(self, x: Tensor, film: Tensor) -> Tensor:
        """Features [N, K, D]; the scales and shifts are folded into those of the normalisation layers."""
        blocks: Any = self.embed.blocks
        each = []
        for images, own in zip(x, film, strict=True):
            params = {}
            for number, (scale, shift) in enumerate(own):
                norm = blocks[number].norm
                params[f"blocks.{number}.norm.weight"] = norm.weight * (1 + scale)
                params[f"blocks.{number}.norm.bias"] = norm.bias * (1 + scale) + shift
            each.append(functional_call(self.embed, params, (images,)))
        return torch.stack(each)


@dataclass(frozen=True)
class FilmConfig(WriterConfig):
    """FiLM: scales and shifts of a net's features are generated per task, and the last layer class by class."""

    encoder_blocks: int = 2  # number of blocks of the task encoder, whose number of filters is `code_size`

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "encoder_blocks", at_most=MOST_BLOCKS)

    def make_adaptation(self, embed: ConvNet, problem: Classification, generator: torch.Generator) -> FilmAdaptation:
        reader = replace(
            self.conv, filters=self.code_size, num_blocks=self.encoder_blocks, num_downsampled=None, output="mean"
        )
        return FilmAdaptation(
            embed,
            ConvNet(reader, problem.input_shape, fused=True, generator=generator),
            image_shape=problem.input_shape,
            code_size=self.code_size,
            hidden_size=self.hidden_size,
            generator=generator,
        )
