"""Hypernetworks: the last two layers of a net are generated per task by another net.

Ha, Dai, Le. HyperNetworks (2017).
Requeima et al. Fast and flexible multi-task classification using conditional neural adaptive processes (2019), CNAPs,
for the last layer.

Deviations: 1. there is no pre-training: embedding and generators are learned together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.fewshot.amortised import ExampleAdaptation
from metarl.fewshot.problem import Classification
from metarl.fewshot.seen_classes import ClassSums
from metarl.fewshot.written_weights import ClassWeights, WriterConfig, linear_logits
from metarl.nets.conv import ConvNet
from metarl.nets.initialisation import orthogonal_
from metarl.nets.mlp import linear, mlp
from metarl.records import Examples, Record


@dataclass(frozen=True)
class WrittenState(Record):
    """Sums over each class's examples, and the layers generated from them."""

    seen: ClassSums  # features and codes, concatenated: [N, W, D + code_size]
    layer: Tensor  # [N, H, D + 1], weights and biases of the hidden layer
    weights: Tensor  # [N, W, H + 1], weights and bias of each class


class WrittenLayersAdaptation(ExampleAdaptation[WrittenState]):
    """A net whose last two layers are generated: a hidden layer from the whole task, the last layer class by class.

    embed: images [N, K, ...] -> [N, K, D]. A task's code is the mean of its examples' codes; a class's weights are
    generated from the hidden layer's output for the mean of its features.
    """

    def __init__(self, embed: ConvNet, *, code_size: int, hidden_size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.embed, self.code_size, self.hidden_size = embed, code_size, hidden_size
        self.size = size = embed.output_size
        self.encode = mlp((size, code_size), activation="relu", generator=generator)
        self.layer = linear(code_size, hidden_size * (size + 1), gain=0.1, generator=generator)
        common = torch.empty(hidden_size, size + 1, device=generator.device)  # the layer before any training
        orthogonal_(common, 2**0.5, generator=generator)
        self.layer.bias.data = common.flatten()
        self.head = ClassWeights(hidden_size, hidden_size, generator=generator)

    @property
    def adapted_parameters(self) -> int:
        """The number of parameters generated per task."""
        return self.hidden_size * (self.size + 1)

    def prior(self, num_tasks: int) -> WrittenState:
        like = next(self.parameters())
        seen = ClassSums.empty(num_tasks, self.size + self.code_size, like)
        return self._written(seen)

    def adapt(self, state: WrittenState, context: Examples) -> WrittenState:
        """The layers for the examples of context [N, K, ...] and all earlier ones."""
        features = self.embed(context.x)
        both = torch.cat([features, self.encode(features)], -1)
        return self._written(state.seen.append(both, context.y, context.valid))

    def predict(self, state: WrittenState, x: Tensor) -> Tensor:
        """Logits [N, Q, W] for queries x [N, Q, ...]."""
        hidden = linear_logits(self.embed(x), state.layer).relu()
        return state.seen.mask_unseen(linear_logits(hidden, state.weights))

    def _written(self, seen: ClassSums) -> WrittenState:
        count = seen.count.sum(1, keepdim=True).clamp(min=1)
        code = seen.total[..., self.size :].sum(1) / count
        layer = self.layer(code).unflatten(1, (self.hidden_size, self.size + 1))
        means = seen.means[..., : self.size]
        return WrittenState(seen, layer, self.head(linear_logits(means, layer).relu()))


@dataclass(frozen=True)
class HypernetworkConfig(WriterConfig):
    """Hypernetwork: a hidden layer is generated per task, and the last layer class by class."""

    def make_adaptation(
        self, embed: ConvNet, problem: Classification, generator: torch.Generator
    ) -> WrittenLayersAdaptation:
        return WrittenLayersAdaptation(
            embed,
            code_size=self.code_size,
            hidden_size=self.hidden_size,
            generator=generator,
        )
