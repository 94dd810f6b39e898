"""Convolutional nets for few-shot images: four blocks of convolution, normalisation and ReLU, in three variants.

Finn, Abbeel, Levine (2017): stride two and, on Omniglot, the mean over pixels. Vinyals et al. (2016), Snell et al.
(2017): 2 x 2 max pooling. Sung et al. (2018): no pooling in the last two blocks, and feature maps instead of vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from metarl.checks import MOST_BLOCKS, at_least, literals, widths
from metarl.nets.mlp import linear
from metarl.nets.norm import Norm, Normalisation


@dataclass(frozen=True)
class ConvConfig:
    """Settings of a convolutional net."""

    filters: int = 64  # number of filters per block
    num_blocks: int = 4  # number of convolution blocks
    downsampling: Literal["pool", "stride"] = "pool"  # way of halving images in a block: max pooling or stride two
    num_downsampled: int | None = None  # number of blocks, from the first, that halve the image; None: all
    output: Literal["flat", "mean", "maps"] = "flat"  # features returned: flattened maps, their means, or the maps
    normalisation: Normalisation = "transductive"  # source of the normalisation statistics (see metarl/nets/norm.py)
    precision: Literal["float32", "bfloat16"] = "float32"  # number format of the convolutions

    def __post_init__(self) -> None:
        literals(self)
        widths(self, "filters")
        at_least(self, 1, "num_blocks", at_most=MOST_BLOCKS)
        if self.num_downsampled is not None and not 0 <= self.num_downsampled <= self.num_blocks:
            allowed = f"from 0 to num_blocks, {self.num_blocks}"
            raise ValueError(f"num_downsampled is {self.num_downsampled}; must be {allowed}")


STRIDED = ConvConfig(downsampling="stride")


class ConvBlock(nn.Module):
    """Convolution, normalisation, ReLU and optionally max pooling."""

    def __init__(
        self,
        channels: int,
        config: ConvConfig,
        *,
        halves: bool,
        fused: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        stride = 2 if halves and config.downsampling == "stride" else 1
        self.pools = halves and config.downsampling == "pool"
        self.conv = nn.Conv2d(channels, config.filters, 3, stride=stride, padding=1, device=generator.device)
        nn.init.xavier_uniform_(self.conv.weight, generator=generator)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)
        self.norm = Norm(config.filters, config.normalisation, fused=fused, device=generator.device)

    def forward(self, x: Tensor, num_context: int) -> Tensor:
        x = self.norm(self.conv(x), num_context).relu()
        return nn.functional.max_pool2d(x, 2) if self.pools else x


class ConvNet(nn.Module):
    """A convolutional net from images to features.

    x: images [K, C, H, W] of one task, or [N, K, C, H, W] of many tasks with shared parameters, normalised separately.
    Returns features [..., K, D], or maps [..., K, F, h, w] if the config asks for them. context: other images of the
    same tasks, whose statistics are used for normalisation; see metarl/nets/norm.py.
    fused: use faster kernels, for learners that need no second derivatives.

    Raises:
        ValueError: when the images are too small for the blocks.
    """

    def __init__(
        self,
        config: ConvConfig,
        image_shape: tuple[int, ...],
        *,
        fused: bool = False,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.config, self.fused = config, fused
        halved = config.num_blocks if config.num_downsampled is None else config.num_downsampled
        self.blocks = nn.ModuleList(
            ConvBlock(
                image_shape[0] if number == 0 else config.filters,
                config,
                halves=number < halved,
                fused=fused,
                generator=generator,
            )
            for number in range(config.num_blocks)
        )
        sizes = list(image_shape[1:])
        for _ in range(halved):
            sizes = [size // 2 if config.downsampling == "pool" else -(-size // 2) for size in sizes]
        if min(sizes) < 1:
            raise ValueError(f"images of {image_shape[1]} x {image_shape[2]} are too small for {halved} halvings")
        self.map_shape = (config.filters, *sizes)
        self.output_size = config.filters * (1 if config.output == "mean" else sizes[0] * sizes[1])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if x.ndim == 4:
            return self._features(x, context)
        if self._image_by_image:
            return self._features(x.flatten(0, 1), None).unflatten(0, x.shape[:2])
        pairs = zip(x, [None] * len(x) if context is None else context, strict=True)
        return torch.stack([self._features(images, own) for images, own in pairs])

    @property
    def _image_by_image(self) -> bool:
        """Whether an image's features are independent of other images; tasks can then be processed together."""
        mode = self.config.normalisation
        return mode in ("layer", "instance", "none") or (mode == "running" and not self.training)

    def _features(self, x: Tensor, context: Tensor | None) -> Tensor:
        """The features of one task's images."""
        num_context = 0 if context is None else len(context)
        if context is not None:
            x = torch.cat([context, x])
        if self.fused:
            x = x.contiguous(memory_format=torch.channels_last)
        half = self.config.precision == "bfloat16"
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            for block in self.blocks:
                x = block(x, num_context)
        x = x[num_context:].float() if half else x[num_context:]
        if self.config.output == "maps":
            return x
        return x.mean((-2, -1)) if self.config.output == "mean" else x.flatten(1)


class ImageClassifier(nn.Module):
    """A convolutional net with a linear head: logits [..., K, ways]."""

    def __init__(
        self, config: ConvConfig, image_shape: tuple[int, ...], ways: int, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        if config.output == "maps":
            raise ValueError("output is 'maps'; a linear head reads 'flat' or 'mean'")
        self.body = ConvNet(config, image_shape, generator=generator)
        self.head = linear(self.body.output_size, ways, gain=1.0, generator=generator)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.head(self.body(x, context))
