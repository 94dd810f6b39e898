"""A window as memory: convolutions over the latest items, which forget all earlier ones.

Kumar, Fu, Pathak, Malik. RMA: rapid motor adaptation for legged robots (2021), the adaptation module.

Each item is embedded by two layers; three convolutions over time with kernels of 8, 5 and 5 items and strides of 4, 1
and 1 follow, and a linear layer reads their flattened output. Because the window moves by one item at a time, the same
numbers come from convolutions over the whole sequence, dilated by 4 after the first: all windows of a trial cost one
pass. Before the first item, embeddings are zero.

Of the paper's 50 items, the stride leaves out the oldest two.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

from metarl.adaptation.attention import CausalStack
from metarl.checks import at_least, widths
from metarl.nets.initialisation import orthogonal_
from metarl.nets.mlp import linear, mlp

_STRIDE, _FIRST_KERNEL, _KERNEL = 4, 8, 5


@dataclass(frozen=True)
class WindowConfig:
    """A window of the latest items, read by convolutions as in RMA."""

    num_items: int = 50  # number of latest items that the window holds; at least 40
    channels: int = 32  # size of an item's embedding and of each convolution's output

    def __post_init__(self) -> None:
        at_least(self, 40, "num_items", at_most=10_000)
        widths(self, "channels")

    @property
    def num_outputs(self) -> int:
        """The number of places at which the last convolution fits into the window."""
        return (self.num_items - _FIRST_KERNEL) // _STRIDE + 1 - 2 * (_KERNEL - 1)

    def make(self, input_size: int, hidden_size: int, *, generator: torch.Generator) -> CausalStack:
        embed = mlp((input_size, self.channels, self.channels), activation="relu", generator=generator)
        block = WindowConvolutions(self.channels, self.num_outputs, generator=generator)
        leave = linear(self.channels * self.num_outputs, hidden_size, gain=1.0, generator=generator)
        return CausalStack(embed, [block], leave, hidden_size=hidden_size)


class WindowConvolutions(nn.Module):
    """Three convolutions over the latest items and their outputs at `num_outputs` places, flattened.

    Its past is the window's items but the newest, [B, reach, channels].
    """

    def __init__(self, channels: int, num_outputs: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.channels, self.num_outputs = channels, num_outputs
        self.reach = _FIRST_KERNEL - 1 + _STRIDE * (2 * (_KERNEL - 1) + num_outputs - 1)
        shapes = ((_FIRST_KERNEL, 1), (_KERNEL, _STRIDE), (_KERNEL, _STRIDE))  # kernel and dilation
        self.layers = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=dilation, device=generator.device)
            for kernel, dilation in shapes
        )
        for layer in self.layers:
            assert isinstance(layer, nn.Conv1d)
            assert layer.bias is not None
            orthogonal_(layer.weight.data.view(channels, -1), 2**0.5, generator=generator)
            nn.init.zeros_(layer.bias)

    def prior(self, num_rows: int) -> Tensor:
        return next(self.parameters()).new_zeros(num_rows, self.reach, self.channels)

    def forward(self, x: Tensor, past: Tensor, *, alone: bool) -> tuple[Tensor, Tensor]:
        if alone:
            rows, items = x.shape[:2]
            windows = torch.cat([past.repeat_interleave(items, 0), x.reshape(rows * items, 1, -1)], 1)
            return self._outputs(windows).view(rows, items, -1), past
        sequence = torch.cat([past, x], 1)
        return self._outputs(sequence), sequence[:, -self.reach :]

    def _outputs(self, sequence: Tensor) -> Tensor:
        """The outputs [B, T, channels * num_outputs] of the T windows in a sequence [B, reach + T, channels]."""
        length = sequence.shape[1] - self.reach
        sequence = sequence.mT
        if length == 1:  # the strided convolutions themselves, where no other window shares their numbers
            for layer, stride in zip(self.layers, (_STRIDE, 1, 1), strict=True):
                sequence = conv1d(sequence, layer.weight, layer.bias, stride).relu()  # pyright: ignore
            return sequence.mT.flatten(1).unsqueeze(1)
        for layer in self.layers:
            sequence = layer(sequence).relu()
        places = [sequence[..., _STRIDE * place :][..., :length] for place in range(self.num_outputs)]
        return torch.cat(places, 1).mT
