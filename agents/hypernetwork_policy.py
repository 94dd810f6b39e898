"""Hypernetwork policies: what the agent knows of the task writes the weights of its policy and of its critic.

Beck et al. Hypernetworks in meta-reinforcement learning (2022).
Beck et al. Recurrent hypernetworks are surprisingly strong in meta-RL (2023).

The latent (a memory's output, or a belief) is embedded in a code of a few numbers. From the code, linear heads write
every weight and bias of policy and critic, so each row acts by a net of its own. The standard deviation of continuous
actions is shared.

The usual initialisation of the heads ignores that they write weights, which come out far too large. With Bias-HyperInit
the heads' own weights are zero, and their biases are a net with the usual initialisation: at the start all tasks share
it.

Deviations: 1. RL2's written layers read the normalised observation itself; VariBAD's an embedding of it, as published.
2. every layer that is not written has orthogonal weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from metarl.checks import literals, widths
from metarl.nets.mlp import Linear

Initialisation = Literal["bias", "kaiming"]


@dataclass(frozen=True)
class HeadsConfig:
    """Heads: the policy and the critic read the latent as a further input."""


@dataclass(frozen=True)
class HypernetworkPolicyConfig:
    """A hypernetwork that writes the policy and the critic from the latent."""

    # initialisation of the writing heads: Bias-HyperInit, one good net for all tasks, or Kaiming's, as of any layer
    initialisation: Initialisation = "bias"
    embedding_size: int = 25  # size of the code in which the latent is embedded
    hidden_sizes: tuple[int, ...] = (32, 32)  # hidden layers of the written policy and of the written critic

    def __post_init__(self) -> None:
        literals(self)
        widths(self, "embedding_size", "hidden_sizes")


PolicyConfig = HeadsConfig | HypernetworkPolicyConfig
POLICIES: dict[str, PolicyConfig] = {  # by the names that the command line takes
    "heads": HeadsConfig(),
    "hypernetwork": HypernetworkPolicyConfig(),
}


class WrittenLinear(nn.Module):
    """A linear layer whose weight and bias are written for each row by linear heads on the row's code.

    Its own weight [out, in] and bias [out] are the heads' biases. No row's weight is stored: what each number of the
    code would add to it is applied to the input, and these products are then summed with the code's numbers as weights.

    layer: a layer with the usual initialisation, which Bias-HyperInit keeps.
    """

    def __init__(self, layer: Linear, config: HypernetworkPolicyConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        size = config.embedding_size
        weight_heads = self.weight.new_zeros(layer.out_features, size, layer.in_features)
        bias_heads = self.weight.new_zeros(layer.out_features, size)
        if config.initialisation == "kaiming":
            bound = math.sqrt(6 / size)  # He et al. (2015), for layers with `size` inputs
            for heads in (weight_heads, bias_heads):
                heads.uniform_(-bound, bound, generator=generator)
            nn.init.zeros_(self.weight)
            nn.init.zeros_(self.bias)
        self.weight_heads, self.bias_heads = nn.Parameter(weight_heads), nn.Parameter(bias_heads)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Outputs [..., out] for x [..., in] with codes [..., size]."""
        added = linear(x, self.weight_heads.flatten(0, 1)).unflatten(-1, self.bias_heads.shape) + self.bias_heads
        return linear(x, self.weight, self.bias) + (added * code.unsqueeze(-2)).sum(-1)

    def written(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """The weight [..., out, in] and the bias [..., out] for codes [..., size]."""
        weight = torch.einsum("oci,...c->...oi", self.weight_heads, code)
        return self.weight + weight, self.bias + linear(code, self.bias_heads)


class WrittenNet(nn.Sequential):
    """A net whose linear layers are written for each row from its code: features [..., in + code] -> [..., out].

    net: linear layers and activations, with the usual initialisation.
    code_first: whether the features begin with the code; if not, they end with it.
    """

    def __init__(
        self,
        net: nn.Sequential,
        config: HypernetworkPolicyConfig,
        *,
        code_first: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__(
            *(WrittenLinear(layer, config, generator) if isinstance(layer, Linear) else layer for layer in net)
        )
        input_size = next(layer.in_features for layer in net if isinstance(layer, Linear))
        sizes = [input_size, config.embedding_size]
        self.code_first, self.sizes = code_first, sizes[::-1] if code_first else sizes

    def forward(self, features: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        first, second = features.split(self.sizes, -1)
        code, x = (first, second) if self.code_first else (second, first)
        for layer in self:
            x = layer(x, code) if isinstance(layer, WrittenLinear) else layer(x)
        return x
