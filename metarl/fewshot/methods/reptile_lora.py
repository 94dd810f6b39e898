"""Reptile in which low-rank adapters adapt; the matrices are moved by the products of the adapters.

Hu et al. LoRA: low-rank adaptation of large language models (2021). Nichol, Achiam, Schulman (2018) for Reptile.

Deviations: 1. biases and the scales and shifts of normalisation, which are fewer still, adapt as well. 2. there is no
pre-training: after each update, a matrix W changes such that W + up @ down moves by Reptile's fraction of its mean
change, while the adapters' own initialisation moves by the same fraction of theirs; 3. convolutions have adapters too,
with their weights viewed as matrices [filters, inputs * pixels].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metarl.adaptation.gradient import Params
from metarl.checks import widths
from metarl.fewshot.methods.reptile import Reptile, ReptileConfig
from metarl.fewshot.problem import Problem
from metarl.fewshot.reparametrised import Reparametrised
from metarl.nets.mlp import key_of
from metarl.parallel import mean_over_tasks


class LowRank(Reparametrised):
    """A net with W + up @ down in place of each matrix W [out, in].

    `down` [rank, in] is initialised randomly, `up` [out, rank] with zeros.
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
        """The names of all parameters except the matrices: adapters, biases, scales and shifts."""
        matrices = {f"net.{name}" for name in self.matrices}
        return [name for name, _ in self.named_parameters() if name not in matrices]

    def effective(self) -> Params:
        params: Params = dict(self.net.named_parameters())
        for name in self.matrices:
            params[name] = params[name] + (self.up[key_of(name)] @ self.down[key_of(name)]).view_as(params[name])
        return params

    def product(self, params: Params, name: str) -> Tensor:
        """up @ down [..., *shape of the matrix], for parameters with or without a task axis."""
        product = params[f"up.{key_of(name)}"] @ params[f"down.{key_of(name)}"]
        return product.unflatten(-1, self.net.get_parameter(name).shape[1:])


def _uniform(shape: tuple[int, ...], limit: float, generator: torch.Generator) -> Tensor:
    return torch.empty(shape, device=generator.device).uniform_(-limit, limit, generator=generator)


@dataclass(frozen=True)
class ReptileLoRAConfig(ReptileConfig):
    """Reptile + LoRA: low-rank adapters adapt, the initialisation of everything is meta-learned."""

    rank: int = 4  # rank of the adapters

    def __post_init__(self) -> None:
        super().__post_init__()
        widths(self, "rank")
        if self.batching == "batched":
            raise ValueError("batching is 'batched'; must be 'vmap', 'chunks' or 'loop' for nets with adapters")

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> ReptileLoRA:
        net = LowRank(self.make_net(problem, generator), self.rank, generator=generator)
        return ReptileLoRA(self, self.make_adaptation(net, problem, net.small), problem, num_iterations)


class ReptileLoRA(Reptile):
    """Moves the adapters, and the matrices by the mean products of the adapters."""

    def _move(self, start: Params, reached: Params, share: float) -> None:
        net = self.adaptation.net
        assert isinstance(net, LowRank)
        products = {
            name: torch.lerp(net.product(start, name)[0], mean_over_tasks(net.product(reached, name)), share)
            for name in net.matrices
        }
        super()._move(start, reached, share)
        params: Params = dict(net.named_parameters())
        for name, product in products.items():
            params[f"net.{name}"].add_(product - net.product(params, name))
