"""Nets whose parameters are computed from other parameters, which adapt in their place."""

from __future__ import annotations

from torch import Tensor, nn
from torch.func import functional_call

from metarl.adaptation.gradient import Params


class Reparametrised(nn.Module):
    """Calls `net` with the parameters returned by `effective`."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.matrices = tuple(name for name, value in net.named_parameters() if value.ndim > 1)

    def effective(self) -> Params:
        """The parameters with which the net is called, by name."""
        raise NotImplementedError

    def forward(self, *inputs: Tensor) -> Tensor:
        return functional_call(self.net, self.effective(), inputs)
