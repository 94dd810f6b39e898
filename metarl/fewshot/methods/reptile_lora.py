"""Reptile whose low-rank adapters are what adapts; the matrices move by what the adapters came to.

Hu et al. LoRA: low-rank adaptation of large language models (2021). Nichol, Achiam, Schulman (2018) for Reptile.

Deviations: 1. biases and the scales and shifts of normalisation adapt as well, which are fewer still. 2. nothing is
trained beforehand: after each update a matrix W takes on what is needed for W + up @ down to move by Reptile's share of
the mean way that the whole has gone, while the adapters' own initialisation moves by the same share of their own;
3. there are adapters of convolutions too, whose weights are seen as matrices [filters, inputs * pixels].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metarl.adaptation.gradient import Params
from metarl.fewshot.methods.reptile import Reptile, ReptileConfig
from metarl.fewshot.problem import Problem
from metarl.fewshot.reparametrised import Reparametrised
from metarl.nets.mlp import key_of


class LowRank(Reparametrised):
    """W + up @ down for each matrix W [out, in] of the net.

    `down` [rank, in] begins at random, `up` [out, rank] at zero.
    """

    def __init__(self, net: nn.Module, rank: int, *, generator: torch.Generator) -> None:
        super().__init__(net)
        if rank < 1:
            raise ValueError(f"rank is {rank}; must be at least 1")
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


def _uniform(shape: tuple[int, ...], limit: float, generator: torch.Generator) -> Tensor:
    return torch.empty(shape, device=generator.device).uniform_(-limit, limit, generator=generator)


@dataclass(frozen=True)
class ReptileLoRAConfig(ReptileConfig):
    """Reptile + LoRA: low-rank adapters adapt, the initialisation of everything is meta-learned."""

    rank: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise ValueError(f"rank is {self.rank}; must be at least 1")
        if self.batching == "batched":
            raise ValueError("batching is 'batched'; nets with adapters need 'vmap', 'chunks' or 'loop'")

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> ReptileLoRA:
        net = LowRank(self.make_net(problem, generator), self.rank, generator=generator)
        return ReptileLoRA(self, self.make_adaptation(net, problem, net.small), problem, num_iterations)


class ReptileLoRA(Reptile):
    """Moves adapters, and the matrices under them by the mean of what the adapters' products came to."""

    def _move(self, start: Params, reached: Params, share: float) -> None:
        net = self.adaptation.net
        assert isinstance(net, LowRank)
        products = {
            name: torch.lerp(net.product(start, name)[0], net.product(reached, name).mean(0), share)
            for name in net.matrices
        }
        super()._move(start, reached, share)
        params: Params = dict(net.named_parameters())
        for name, product in products.items():
            params[f"net.{name}"].add_(product - net.product(params, name))
