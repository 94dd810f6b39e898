"""Relation networks: the state is the sum of each class's feature maps, which a second net compares with queries.

Sung et al. Learning to compare: relation network for few-shot learning (2018).

Deviations: 1. optionally, the classes' maps are averaged, not summed, which allows the number of shots to change; with
one shot the two are equal; 2. support and queries are embedded separately, so running statistics are updated by one,
then the other; the published code normalises both together in meta-training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from metarl.checks import widths
from metarl.fewshot.amortised import ExampleAdaptation
from metarl.fewshot.embedding import EMBEDDING, EmbeddingConfig
from metarl.fewshot.problem import Classification, Problem
from metarl.fewshot.seen_classes import ClassSums, one_hot
from metarl.nets.conv import ConvBlock, ConvConfig, ConvNet
from metarl.nets.mlp import linear
from metarl.records import Examples

Pooling = Literal["sum", "mean"]


class RelationAdaptation(ExampleAdaptation[ClassSums]):
    """A net scores the relation of a query to each class between zero and one; trained on the squared error.

    embed: a net that outputs feature maps. relation: scores pairs of such maps.
    """

    def __init__(self, embed: ConvNet, relation: Relation, *, pooling: Pooling) -> None:
        super().__init__()
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling is {pooling!r}; must be one of {', '.join(get_args(Pooling))}")
        self.embed, self.relation, self.pooling = embed, relation, pooling

    def prior(self, num_tasks: int) -> ClassSums:
        return ClassSums.empty(num_tasks, self.embed.output_size, next(self.parameters()))

    def adapt(self, state: ClassSums, context: Examples) -> ClassSums:
        """The sums of maps, including those of context [N, K, C, H, W]."""
        return state.append(self.embed(context.x).flatten(2), context.y, context.valid)

    def predict(self, state: ClassSums, x: Tensor) -> Tensor:
        """The logarithm of each class's score [N, Q, W] for queries x [N, Q, C, H, W].

        Trained on the squared error, a score is the probability that query and class match, so the softmax of this, the
        scores divided by their sum, gives class probabilities.
        """
        classes = (state.total if self.pooling == "sum" else state.means).unflatten(2, self.embed.map_shape)
        return state.mask_unseen(nn.functional.logsigmoid(self.relation(self.embed(x), classes)))

    def criterion(self, problem: Problem) -> Callable[[Tensor, Tensor], Tensor]:
        return self.losses

    def losses(self, prediction: Tensor, y: Tensor) -> Tensor:
        """The squared error [N, Q] of the scores; the target is one for the right class and zero for others."""
        return (prediction.exp() - one_hot(y, prediction.shape[-1]).to(prediction.dtype)).square().mean(-1)


class Relation(nn.Module):
    """Scores pairs of maps by two convolutional blocks and two linear layers.

    config: settings of the embedding net; the same kind of blocks is used here.
    """

    def __init__(
        self, map_shape: tuple[int, ...], config: ConvConfig, *, hidden_size: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.config = config
        first = replace(config, num_blocks=1, num_downsampled=None, downsampling="pool")
        self.first = ConvBlock(2 * map_shape[0], first, halves=True, fused=True, generator=generator)
        sizes = (config.filters, *(size // 2 for size in map_shape[1:]))
        self.second = ConvNet(replace(first, output="flat"), sizes, fused=True, generator=generator)
        self.head = nn.Sequential(
            linear(self.second.output_size, hidden_size, gain=2**0.5, generator=generator),
            nn.ReLU(),
            linear(hidden_size, 1, gain=1.0, generator=generator),
        )

    def forward(self, query: Tensor, classes: Tensor) -> Tensor:
        """Log odds [N, Q, W] of queries [N, Q, F, h, w] and classes [N, W, F, h, w]."""
        pairs = torch.stack([self._first(*task) for task in zip(query, classes, strict=True)])
        return self.head(self.second(pairs)).view(*query.shape[:2], -1)

    def _first(self, query: Tensor, classes: Tensor) -> Tensor:
        """The first block on all pairs of one task, [Q * W, F, h / 2, w / 2].

        A convolution of two stacked maps is a sum of two convolutions, each computed once per map and not per pair.
        """
        conv, features = self.first.conv, query.shape[1]
        with torch.autocast(query.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            of_query = nn.functional.conv2d(query, conv.weight[:, :features], conv.bias, padding=1)
            of_class = nn.functional.conv2d(classes, conv.weight[:, features:], padding=1)
            pairs = (of_query.unsqueeze(1) + of_class.unsqueeze(0)).flatten(0, 1)
            pairs = pairs.contiguous(memory_format=torch.channels_last)
            pairs = nn.functional.max_pool2d(self.first.norm(pairs).relu(), 2)
        return pairs.float() if self.config.precision == "bfloat16" else pairs


MAPS = replace(EMBEDDING, output="maps", num_downsampled=2)


@dataclass(frozen=True)
class RelationConfig(EmbeddingConfig):
    """Relation network: a second net scores how a query is related to each class."""

    conv: ConvConfig = MAPS  # settings of the embedding net
    takes_maps: ClassVar[bool] = True
    hidden_size: int = 8  # number of hidden units between the relation net's maps and its score
    pooling: Pooling = "sum"  # way of combining a class's feature maps

    def __post_init__(self) -> None:
        super().__post_init__()
        widths(self, "hidden_size")

    def make_adaptation(
        self, embed: ConvNet, problem: Classification, generator: torch.Generator
    ) -> RelationAdaptation:
        relation = Relation(embed.map_shape, self.conv, hidden_size=self.hidden_size, generator=generator)
        return RelationAdaptation(embed, relation, pooling=self.pooling)
