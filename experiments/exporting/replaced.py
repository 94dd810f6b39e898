"""Operations that torch's ONNX exporter does not know, written with others that it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d


def _sort(x: Tensor, *, stable: bool, dim: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
    """A sort as ONNX has it, whose TopK puts the first of equals first."""
    return tuple(torch.topk(x, x.shape[dim], dim, largest=descending))  # pyright: ignore[reportReturnType], two


def _convolution_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of a convolution of images x [N, C, H, W], which are convolutions too.

    Raises:
        NotImplementedError: for a transposed convolution, or one of other inputs.
    """
    if transposed or x.ndim != 4:
        raise NotImplementedError("the gradient of a convolution that is transposed, or not of images")
    of_x = of_weight = of_bias = None
    axes = range(2)
    if output_mask[0]:
        reached = [
            (gradient.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (weight.shape[2 + i] - 1) + 1
            for i in axes
        ]
        rest = tuple(x.shape[2 + i] - reached[i] for i in axes)  # rows and columns that no step of the kernel reaches
        of_x = conv_transpose2d(gradient, weight, None, tuple(stride), tuple(padding), rest, groups, tuple(dilation))
    if output_mask[1]:
        number, channels, *size = x.shape
        by_channel = x.reshape(number, groups, channels // groups, *size).permute(2, 1, 0, 3, 4)
        by_channel = by_channel.reshape(channels // groups, groups * number, *size)
        found = conv2d(
            by_channel, gradient.transpose(0, 1), None, tuple(dilation), tuple(padding), tuple(stride), groups
        )
        of_weight = found.transpose(0, 1)[:, :, : weight.shape[2], : weight.shape[3]].contiguous()  # it may be viewed
    if output_mask[2]:
        of_bias = gradient.sum((0, 2, 3))
    return of_x, of_weight, of_bias


REPLACED: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.sort.stable: _sort,
    torch.ops.aten.convolution_backward.default: _convolution_backward,
}
