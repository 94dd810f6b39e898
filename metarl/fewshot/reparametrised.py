"""Nets whose parameters are made from others, so that other things adapt than what the net multiplies with."""

from __future__ import annotations

from torch import Tensor, nn
from torch.func import functional_call

from metarl.adaptation.gradient import Params


class Reparametrised(nn.Module):
    """Calls `net` with the parameters that `effective` makes."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.matrices = tuple(name for name, value in net.named_parameters() if value.ndim > 1)

    def effective(self) -> Params:
        """The net's parameters by name, as they are used."""
        raise NotImplementedError

    def forward(self, *inputs: Tensor) -> Tensor:
        return functional_call(self.net, self.effective(), inputs)
