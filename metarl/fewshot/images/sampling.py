"""Sampling of episodes from a pool of classes, for all tasks at once: N-way K-shot, or with varying sizes.

Varying sizes follow Triantafillou et al. Meta-Dataset: a dataset of datasets for learning to learn from few examples
(2020), section 3.2.

Deviation: 1. The classes of a group are equally likely; ImageNet's hierarchy above them is not used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from metarl.fewshot.episode import FewShotEpisode
from metarl.fewshot.images.class_set import ClassPool, ImageClasses
from metarl.records import Examples

_PARTITION_SEED = 0  # of the partition of classes into ways, where labels are fixed


class Sampler(Protocol):
    """The sizes of episodes: the number of ways, and of examples per way."""

    varies: bool  # whether sizes differ between episodes or ways

    @property
    def least_ways(self) -> int: ...

    @property
    def most_ways(self) -> int: ...

    def ways(self, available: Tensor, generator: torch.Generator) -> Tensor:
        """The number of ways of each episode [N], given the number of `available` classes [N]."""
        ...

    def sizes(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Numbers of support and query examples per way, [N, W] each; images [N, W]: those of each way; 0: no way."""
        ...


@dataclass(frozen=True)
class FixedSampler:
    """Fixed numbers of ways, shots and queries."""

    num_ways: int
    shots: int
    queries: int

    varies = False

    @property
    def least_ways(self) -> int:
        return self.num_ways

    @property
    def most_ways(self) -> int:
        return self.num_ways

    def ways(self, available: Tensor, generator: torch.Generator) -> Tensor:
        return torch.full_like(available, self.num_ways)

    def sizes(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.full_like(images, self.shots), torch.full_like(images, self.queries)


@dataclass(frozen=True)
class MetaDatasetSampler:
    """Varying numbers of ways, and of shots per way, as in Meta-Dataset."""

    most_ways: int = 50  # largest number of classes per task
    queries: int = 10  # largest number of queries per class, equal for all classes of an episode
    support: int = 500  # largest number of support examples per episode
    support_of_class: int = 100  # largest contribution of one class to the size of a support
    least_ways: int = 5  # smallest number of classes per task
    log_weight: float = math.log(2)  # bound on the absolute log weight of a class in the support

    varies = True

    def ways(self, available: Tensor, generator: torch.Generator) -> Tensor:
        choices = available.clamp(max=self.most_ways) - self.least_ways + 1
        share = torch.rand(available.shape, generator=generator, device=available.device)
        return self.least_ways + (share * choices).long().clamp(max=choices - 1)

    def sizes(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        present, device = images > 0, images.device
        smallest = images.masked_fill(~present, images.max()).amin(1, keepdim=True)
        queries = (smallest // 2).clamp(max=self.queries) * present  # [N, W]
        remaining = images - queries
        beta = torch.rand(len(images), 1, generator=generator, device=device)
        added = (beta * remaining.clamp(max=self.support_of_class) + 1).floor()  # the ceiling for a beta in (0, 1]
        size = (added * present).sum(1, keepdim=True).clamp(max=self.support)  # [N, 1]
        weight = 2 * torch.rand(images.shape, generator=generator, device=device) - 1
        weight = (self.log_weight * weight).exp() * images  # [N, W]
        share = weight / weight.sum(1, keepdim=True)
        spare = size - present.sum(1, keepdim=True)  # after one per class
        return torch.minimum((share * spare).long() + 1, remaining) * present, queries


def draw(
    pool: ClassPool, num_tasks: int, sampler: Sampler, generator: torch.Generator, members: Tensor | None = None
) -> FewShotEpisode:
    """Episodes of fresh tasks on the generator's device, which must be the pool's, with distinct support and queries.

    members: which members of the pool are the ways of each task, [N, W]; None: any, drawn by the sampler.

    x [N, K, C, H, W] float32 in [0, 1] and y [N, K] int64, ordered by shot: one example of every way in random order,
    then a second one of each, and so on. If sizes vary, `valid` [N, K] is false for padding, which repeats a row's own
    examples, so batch statistics are those of images.

    Raises:
        ValueError: when the pool has fewer classes than ways, or a class fewer images than are needed.
    """
    if members is None:
        members, present = draw_ways(pool, num_tasks, sampler, generator)  # two [N, W]
    else:
        present = torch.ones_like(members, dtype=torch.bool)
    classes = pool.classes[members]
    images = pool.source.counts[classes] * present
    support, query = sampler.sizes(images, generator)
    if sampler.varies:
        _check_enough(pool.source, classes, images, support, query)
    else:  # all classes that could be drawn, since chance should not decide whether a fault is seen
        counts = pool.source.counts[pool.classes]
        _check_enough(pool.source, pool.classes, counts, *sampler.sizes(counts, generator))
    ranks = _shuffled(images, int((support + query).max()), generator)  # [N, W, most of a way]
    turns = pool.turns[members] + _random_turns(pool, members, generator)
    chosen = _Chosen(pool, pool.source.starts[classes][..., None] + ranks, turns, sampler.varies)
    first = torch.zeros_like(support)
    return FewShotEpisode(
        chosen.examples(first, support, generator),
        chosen.examples(support, query, generator),
    )


@dataclass(frozen=True)
class _Chosen:
    """The images that an episode may show."""

    pool: ClassPool
    images: Tensor  # [N, W, R] int64 into the source, in random order
    turns: Tensor  # [N, W] quarter turns
    varies: bool  # whether to say which examples are there

    def examples(self, first: Tensor, count: Tensor, generator: torch.Generator) -> Examples:
        """Of each way, `count` [N, W] images from number `first` [N, W] on."""
        way, shot, valid = _by_shot(count, generator)  # three [N, K]
        tasks = torch.arange(len(way), device=way.device)[:, None]
        index = self.images[tasks, way, (first[tasks, way] + shot).clamp(max=self.images.shape[2] - 1)]
        turns = self.turns[tasks, way]
        if not self.varies:
            return Examples(self._values(index, turns), way)
        again = torch.arange(valid.shape[1], device=valid.device) % valid.sum(1, keepdim=True)
        index, turns, way = (value.gather(1, again) for value in (index, turns, way))
        return Examples(self._values(index, turns), way, valid=valid)

    def _values(self, index: Tensor, turns: Tensor) -> Tensor:
        """Images [N, K] of the source as numbers [N, K, C, H, W]."""
        x = _turned(self.pool.source.images[index], turns).float().div_(255)
        if self.pool.mean is not None and self.pool.std is not None:
            x.sub_(self.pool.mean[:, None, None]).div_(self.pool.std[:, None, None])
        return x


def draw_with_fixed_labels(num_classes: int, ways: int, num_tasks: int, generator: torch.Generator) -> Tensor:
    """Members of a pool [N, W] in which each has the same way in all tasks: a random one per way.

    The partition of the classes into ways does not depend on the generator.

    Raises:
        ValueError: when there are fewer classes than ways.
    """
    if num_classes < ways:
        raise ValueError(f"ways is {ways}; classes are {num_classes}")
    order = torch.randperm(num_classes, generator=torch.Generator().manual_seed(_PARTITION_SEED))
    way = (order % ways).to(generator.device)  # [P]
    rank = torch.rand(num_tasks, num_classes, generator=generator, device=generator.device)
    return torch.stack([rank.masked_fill(way != label, -1.0).argmax(1) for label in range(ways)], dim=1)


def draw_ways(pool: ClassPool, num_tasks: int, sampler: Sampler, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Members of the pool [N, W], all different in a row, and which of them are ways of their episode [N, W]."""
    device = generator.device
    order = torch.rand(num_tasks, len(pool), generator=generator, device=device)
    sizes = torch.tensor([len(pool)], device=device) if pool.groups is None else pool.groups.bincount()
    large = (sizes >= sampler.least_ways).nonzero()[:, 0]
    if not len(large):
        where = "classes are" if pool.groups is None else "in the largest group are"
        raise ValueError(f"ways is {sampler.least_ways}; {where} {int(sizes.max())}")
    group = large[torch.randint(len(large), (num_tasks,), generator=generator, device=device)]
    if pool.groups is not None:
        order = order.masked_fill(pool.groups != group[:, None], -1.0)
    ways = sampler.ways(sizes[group], generator)
    members = order.topk(int(ways.max()), dim=1).indices
    return members, torch.arange(members.shape[1], device=device) < ways[:, None]


def _check_enough(source: ImageClasses, classes: Tensor, images: Tensor, support: Tensor, query: Tensor) -> None:
    short = ((support + query > images) & (images > 0)).nonzero()
    if len(short):
        at = tuple(short[0].tolist())
        shots, queries, has = (int(sizes[at]) for sizes in (support, query, images))
        raise ValueError(
            f"shots + queries is {shots} + {queries} = {shots + queries}; class {source.names[int(classes[at])]} "
            f"has {has} image{'s' if has > 1 else ''}"
        )


def _shuffled(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """The first `most` places of a random order of each way's images: [N, W, most], each below `images` [N, W]."""
    largest = int(images.max())
    order = torch.rand(*images.shape, largest, generator=generator, device=images.device)
    beyond = torch.arange(largest, device=images.device) >= images[..., None]
    return order.masked_fill_(beyond, -1.0).topk(min(most, largest), dim=-1).indices


def _random_turns(pool: ClassPool, members: Tensor, generator: torch.Generator) -> Tensor:
    if pool.turned_by is None:
        return torch.zeros_like(members)
    shape = (len(members), 1) if pool.turned_by == "episode" else tuple(members.shape)
    return torch.randint(4, shape, generator=generator, device=members.device).expand(members.shape)


def _by_shot(count: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """The order in which `count` [N, W] examples of each way are shown: way, shot and whether it exists, [N, K]."""
    tasks, ways = count.shape
    shots = int(count.max())
    way = torch.rand(tasks, shots, ways, generator=generator, device=count.device).argsort(-1).flatten(1)
    shot = torch.arange(shots, device=count.device).repeat_interleave(ways).expand(tasks, -1)
    exists = shot < count.gather(1, way)
    if exists.all():
        return way, shot, exists
    front = (~exists).byte().argsort(dim=1, stable=True)[:, : int(exists.sum(1).max())]
    return way.gather(1, front), shot.gather(1, front), exists.gather(1, front)


def _turned(images: Tensor, turns: Tensor) -> Tensor:
    """Square images [N, K, C, H, W], each turned counterclockwise by quarters [N, K]."""
    turns = turns % 4
    for quarters in (1, 2, 3):
        rows = turns == quarters
        if rows.any():
            images[rows] = images[rows].rot90(quarters, (-2, -1))
    return images
