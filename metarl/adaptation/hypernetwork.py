"""Adaptation by a net that writes weights: the state is what another net, having seen the examples, gives this one.

Ha, Dai, Le. HyperNetworks (2017).
Perez et al. FiLM: visual reasoning with a general conditioning layer (2018).
Requeima et al. Fast and flexible multi-task classification using conditional neural adaptive processes (2019), CNAPs.

The weights of a class are written from its own examples alone, by one net for all classes, so that there may be any
number of them.

Deviations: 1. nothing is trained beforehand: embedding, encoder and generators are learned together; 2. FiLM is written
from the task as a whole for all blocks at once, without CNAPs' auto-regression over blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metarl.adaptation.metric import ClassSums, Embedded
from metarl.nets.conv import ConvNet
from metarl.nets.mlp import linear, mlp
from metarl.records import Examples, Record


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
class FilmState(Record):
    """The images, and what follows from them."""

    seen: Embedded  # images as they are, [N, K, C * H * W]
    film: Tensor  # [N, blocks, 2, F] scales, less one, and shifts of each block's features
    weights: Tensor  # [N, W, D + 1] and bias of each class


class FilmAdaptation(nn.Module):
    """Each block of a net is scaled and shifted for the task, and a last layer is written class by class.

    embed: the net. encoder: images [N, K, ...] -> [N, K, code_size], whose mean over the examples stands for the task.
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
        """Numbers that are written for the task as a whole."""
        return torch.Size(self.film_shape).numel()

    def prior(self, num_tasks: int) -> FilmState:
        like = next(self.parameters())
        seen = Embedded.none(num_tasks, torch.Size(self.image_shape).numel(), like)
        weights = like.new_zeros(num_tasks, 0, self.embed.output_size + 1)
        return FilmState(seen, like.new_zeros(num_tasks, *self.film_shape), weights)

    def adapt(self, state: FilmState, context: Examples) -> FilmState:
        """The net for the examples of context [N, K, C, H, W] and for those seen before."""
        seen = state.seen.added(context.x.flatten(2), context.y, context.valid)
        images = seen.x.unflatten(2, self.image_shape)
        counted = seen.valid.unsqueeze(-1)
        code = (self.encoder(images) * counted).sum(1) / counted.sum(1).clamp(min=1)
        film = self.film(code).unflatten(1, self.film_shape)
        features = self._embedded(images, film)
        sums = ClassSums.none(len(features), features.shape[-1], features).added(features, seen.y, seen.valid)
        return FilmState(seen, film, self.head(sums.means))

    def predict(self, state: FilmState, x: Tensor) -> Tensor:
        """Logits [N, Q, W] for queries x [N, Q, C, H, W]."""
        return state.seen.of_seen(linear_logits(self._embedded(x, state.film), state.weights))

    def _embedded(self, x: Tensor, film: Tensor) -> Tensor:
        """Features [N, K, D]: scaling and shifting after normalisation is another scale and shift of the norm's own."""
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
class WrittenState(Record):
    """What was seen of each class, and the layers written from it."""

    seen: ClassSums  # of features and codes, side by side [N, W, D + code_size]
    layer: Tensor  # [N, H, D + 1] weights and biases of the hidden layer
    weights: Tensor  # [N, W, H + 1] and bias of each class


class WrittenLayersAdaptation(nn.Module):
    """The last two layers of a net are written: a hidden one from the task as a whole, the last one class by class.

    embed: images [N, K, ...] -> [N, K, size]. A task's code is the mean of its examples'; a class's weights are written
    from what the hidden layer says of the mean of its features.
    """

    def __init__(
        self, embed: nn.Module, *, size: int, code_size: int, hidden_size: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.embed, self.size, self.code_size, self.hidden_size = embed, size, code_size, hidden_size
        self.encode = mlp((size, code_size), activation="relu", generator=generator)
        self.layer = linear(code_size, hidden_size * (size + 1), gain=0.1, generator=generator)
        common = torch.empty(hidden_size, size + 1, device=generator.device)  # the layer that it begins at
        nn.init.orthogonal_(common, 2**0.5, generator=generator)
        self.layer.bias.data = common.flatten()
        self.head = ClassWeights(hidden_size, hidden_size, generator=generator)

    @property
    def adapted_parameters(self) -> int:
        """Numbers that are written for the task as a whole."""
        return self.hidden_size * (self.size + 1)

    def prior(self, num_tasks: int) -> WrittenState:
        like = next(self.parameters())
        seen = ClassSums.none(num_tasks, self.size + self.code_size, like)
        return self._written(seen)

    def adapt(self, state: WrittenState, context: Examples) -> WrittenState:
        """The layers for the examples of context [N, K, ...] and for those seen before."""
        features = self.embed(context.x)
        both = torch.cat([features, self.encode(features)], -1)
        return self._written(state.seen.added(both, context.y, context.valid))

    def predict(self, state: WrittenState, x: Tensor) -> Tensor:
        """Logits [N, Q, W] for queries x [N, Q, ...]."""
        hidden = linear_logits(self.embed(x), state.layer).relu()
        return state.seen.of_seen(linear_logits(hidden, state.weights))

    def _written(self, seen: ClassSums) -> WrittenState:
        count = seen.count.sum(1, keepdim=True).clamp(min=1)
        code = seen.total[..., self.size :].sum(1) / count
        layer = self.layer(code).unflatten(1, (self.hidden_size, self.size + 1))
        means = seen.means[..., : self.size]
        return WrittenState(seen, layer, self.head(linear_logits(means, layer).relu()))
