"""Nets whose parameters are made from others, so that other things adapt than what the net multiplies with.

Hu et al. LoRA: low-rank adaptation of large language models (2021).
Lee, Choi. Gradient-based meta-learning with learned layerwise metric and subspace (2018), the T-net.

Deviations: 1. adapters of convolutions too, whose weights are seen as matrices [filters, inputs * pixels].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metarl.nets.mlp import key_of

Params = dict[str, Tensor]


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


class LowRank(Reparametrised):
    """W + up @ down for each matrix W [out, in] of the net.

    `down` [rank, in] begins at random, `up` [out, rank] at zero.
    """

    def __init__(self, net: nn.Module, rank: int, *, generator: torch.Generator) -> None:
        super().__init__(net)
        if rank < 1:
            raise ValueError(f"rank is {rank}; it must be at least 1")
        weights = {name: net.get_parameter(name) for name in self.matrices}
        self.down = nn.ParameterDict(
            {
                key_of(name): _uniform((rank, w[0].numel()), 1 / math.sqrt(w[0].numel()), generator)
                for name, w in weights.items()
            }
        )
        self.up = nn.ParameterDict({key_of(name): w.new_zeros(len(w), rank) for name, w in weights.items()})

    @property
    def small(self) -> list[str]:
        """Names of all parameters but the matrices: the adapters', biases, scales and shifts."""
        matrices = {f"net.{name}" for name in self.matrices}
        return [name for name, _ in self.named_parameters() if name not in matrices]

    def effective(self) -> Params:
        params: Params = dict(self.net.named_parameters())
        for name in self.matrices:
            params[name] = params[name] + (self.up[key_of(name)] @ self.down[key_of(name)]).view_as(params[name])
        return params

    def product(self, params: Params, name: str) -> Tensor:
        """up @ down of a matrix, [..., *shape of the matrix], for parameters with or without a task axis."""
        product = params[f"up.{key_of(name)}"] @ params[f"down.{key_of(name)}"]
        return product.unflatten(-1, self.net.get_parameter(name).shape[1:])


class Transformed(Reparametrised):
    """A T-net: a linear map [out, out] after each linear layer or convolution, at first the identity."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        weights = {name: net.get_parameter(name) for name in self.matrices}
        self.maps = nn.ParameterDict(
            {key_of(name): torch.eye(len(w), dtype=w.dtype, device=w.device) for name, w in weights.items()}
        )

    @property
    def plain(self) -> list[str]:
        """Names of all parameters but the maps."""
        return [f"net.{name}" for name, _ in self.net.named_parameters()]

    def effective(self) -> Params:
        params: Params = dict(self.net.named_parameters())
        for name in self.matrices:
            after = self.maps[key_of(name)]
            params[name] = (after @ params[name].flatten(1)).view_as(params[name])
            bias = f"{name.rpartition('.')[0]}.bias".removeprefix(".")
            if bias in params:
                params[bias] = after @ params[bias]
        return params


def _uniform(shape: tuple[int, ...], limit: float, generator: torch.Generator) -> Tensor:
    return torch.empty(shape, device=generator.device).uniform_(-limit, limit, generator=generator)
