"""Images by class: one tensor of bytes, and the classes that belong to a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageClasses:
    """All images of a data set, ordered by class."""

    images: Tensor  # [M, C, H, W] uint8
    counts: Tensor  # [P] int64, number of images per class
    names: tuple[str, ...]  # names of the P classes
    groups: tuple[str, ...]  # group of each class, e.g. its alphabet or superclass; "" for none

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise ValueError(f"images are {self.images.dtype} {list(self.images.shape)}; must be uint8 [M, C, H, W]")
        if not len(self.counts) == len(self.names) == len(self.groups) or int(self.counts.sum()) != len(self.images):
            raise ValueError(
                f"counts are {len(self.counts)} that sum to {int(self.counts.sum())}; there are {len(self.names)} "
                f"names, {len(self.groups)} groups and {len(self.images)} images"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def starts(self) -> Tensor:
        """The index of each class's first image: [P] int64."""
        return self.counts.cumsum(0) - self.counts

    def to(self, device: torch.device | str) -> ImageClasses:
        return replace(self, images=self.images.to(device), counts=self.counts.to(device))


@dataclass(frozen=True, eq=False)
class ClassPool:
    """The classes from which the ways of an episode are drawn, each with a fixed number of quarter turns.

    A class in four orientations counts as four members of a pool.
    """

    source: ImageClasses
    classes: Tensor  # [P] int64, indices into the source's classes
    turns: Tensor  # [P] int64, counterclockwise quarter turns of each member
    groups: Tensor | None = None  # [P] int64; all ways of an episode come from one group; None: no groups
    turned_by: str | None = None  # additional random turns per "class" or per "episode"; None: none
    mean: Tensor | None = None  # [C], subtracted from every image (values in [0, 1])
    std: Tensor | None = None  # [C], divisor of every image after subtracting the mean

    def __len__(self) -> int:
        return len(self.classes)

    def to(self, device: torch.device | str) -> ClassPool:
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in values.items() if isinstance(v, Tensor | ImageClasses)})


def pool_of(
    source: ImageClasses,
    classes: Sequence[int],
    *,
    all_turns: bool = False,
    by_group: bool = False,
    turned_by: str | None = None,
) -> ClassPool:
    """A pool of some classes of a set; all_turns: each class in its four orientations."""
    index = torch.tensor(list(classes), dtype=torch.int64)
    number = {group: i for i, group in enumerate(dict.fromkeys(source.groups[c] for c in classes))}
    groups = torch.tensor([number[source.groups[c]] for c in classes], dtype=torch.int64)
    turns = torch.arange(4 if all_turns else 1)
    return ClassPool(
        source,
        index.repeat_interleave(len(turns)),
        turns.repeat(len(index)),
        groups.repeat_interleave(len(turns)) if by_group else None,
        turned_by,
    )


def channel_statistics(pool: ClassPool) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel, [C] each, of values in [0, 1] over all images of a pool's classes."""
    source = pool.source
    counts = torch.zeros(source.image_shape[0], 256, dtype=torch.float64)  # exact histogram of values
    for index in pool.classes.unique().tolist():
        start = int(source.starts[index])
        for channel, values in enumerate(source.images[start : start + int(source.counts[index])].unbind(1)):
            counts[channel] += values.flatten().bincount(minlength=256).cpu()
    share = counts / counts.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ values
    return mean.float(), (share @ values.square() - mean.square()).sqrt().float()
