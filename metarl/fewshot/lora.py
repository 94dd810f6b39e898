"""Reptile whose low-rank adapters are what adapts; the matrices move by what the adapters came to.

Hu et al. LoRA: low-rank adaptation of large language models (2021). Nichol, Achiam, Schulman (2018) for Reptile.

Deviations: 1. biases and the scales and shifts of normalisation adapt as well, which are fewer still. 2. nothing is
trained beforehand: after each update a matrix W takes on what is needed for W + up @ down to move by Reptile's share of
the mean way that the whole has gone, while the adapters' own initialisation moves by the same share of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarl.adaptation.gradient import Params
from metarl.adaptation.reparametrised import LowRank
from metarl.fewshot.problem import Problem
from metarl.fewshot.reptile import Reptile, ReptileConfig


@dataclass(frozen=True)
class ReptileLoRAConfig(ReptileConfig):
    """Reptile + LoRA: low-rank adapters adapt, the initialisation of everything is meta-learned."""

    rank: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise ValueError(f"rank is {self.rank}; it must be at least 1")
        if self.batching == "batched":
            raise ValueError("batching is 'batched'; nets with adapters need 'vmap', 'chunks' or 'loop'")

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> ReptileLoRA:
        net = LowRank(self.make_net(problem, generator), self.rank, generator=generator)
        return ReptileLoRA(self, self.make_adaptation(net, problem, net.small), problem, num_iterations)


class ReptileLoRA(Reptile):
    """Moves adapters, and the matrices under them by the mean of what the adapters' products came to."""

    def _move(self, start: Params, reached: Params, share: float) -> None:
        net = self.adaptation.net
        products = {
            name: torch.lerp(net.product(start, name)[0], net.product(reached, name).mean(0), share)
            for name in net.matrices
        }
        super()._move(start, reached, share)
        params = dict(net.named_parameters())
        for name, product in products.items():
            params[f"net.{name}"].add_(product - net.product(params, name))
