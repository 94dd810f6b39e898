"""A learned optimizer: an LSTM outputs the update of each parameter entry, from a learned initialisation.

Andrychowicz et al. Learning to learn by gradient descent by gradient descent (2016).

Deviations: 1. it is trained on the loss of other examples than those it fits (after every step at first, as published,
and later after the last one); 2. the initialisation is learned too; 3. all parameters share one optimizer; the paper
has one for convolutions and one for the rest; 4. all of its few steps are unrolled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metarl.adaptation.gradient import Params
from metarl.checks import positive
from metarl.fewshot.learned_rule import Cell, RuleConfig, joined, log_and_sign, parted
from metarl.nets.mlp import linear


class LearnedOptimizer(nn.Module):
    """Two LSTM layers read a parameter entry's gradient; their output, times `scale`, is added to the entry.

    scale: a small number, which keeps untrained updates small.
    """

    def __init__(self, hidden_size: int, scale: float, *, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden_size, self.scale = hidden_size, scale
        self.first = Cell(2, hidden_size, generator)
        self.second = Cell(hidden_size, hidden_size, generator)
        self.head = linear(hidden_size, 1, gain=1.0, generator=generator)

    def start(self, params: Params, generator: torch.Generator | None) -> dict[str, Any]:
        return {"units": joined(params).new_zeros(*joined(params).shape, 4, self.hidden_size)}  # [N, P, 4, H]

    def forward(
        self, params: Params, gradient: Params, losses: Tensor, memory: dict[str, Any]
    ) -> tuple[Params, dict[str, Any]]:
        read = log_and_sign(joined(gradient)).flatten(0, 1)  # [N * P, 2]
        units = memory["units"]
        h1, c1, h2, c2 = units.flatten(0, 1).unbind(1)
        h1, c1 = self.first(read, (h1, c1))
        h2, c2 = self.second(h1, (h2, c2))
        move = self.scale * self.head(h2).view(units.shape[:2])
        remembered = torch.stack([h1, c1, h2, c2], 1).view(units.shape)
        return parted(joined(params) + move, params), {"units": remembered}


@dataclass(frozen=True)
class LearnedOptimizerConfig(RuleConfig):
    """A learned optimizer: two LSTM layers applied to each parameter entry, with shared weights."""

    multi_step_share: float = 0.5  # fraction of the iterations over which losses after earlier steps fade out
    scale: float = 0.1  # factor on the learned updates

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "scale")

    def make_rule(self, generator: torch.Generator) -> LearnedOptimizer:
        return LearnedOptimizer(self.hidden_size, self.scale, generator=generator)
