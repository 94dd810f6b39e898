"""The meta-learner LSTM: an optimizer whose cell state is the net's parameters, with a learned initialisation.

Ravi, Larochelle. Optimization as a model for few-shot learning (2017): each parameter entry is the cell state of an
LSTM, whose gates set how much of it is kept and how much of the gradient is subtracted; another LSTM reads gradient and
loss.

Deviations: 1. several tasks per update; 2. the gates' initial values, a learning rate and the fraction kept, are
settings; 3. normalisation is the net's own setting, by default transductive; the paper keeps running statistics within
an episode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metarl.adaptation.gradient import Params
from metarl.checks import in_range
from metarl.fewshot.learned_rule import Cell, RuleConfig, joined, log_and_sign, parted
from metarl.nets.mlp import linear


class MetaLearnerLSTM(nn.Module):
    """Each parameter entry is a cell state, scaled by a forget gate, minus its gradient scaled by an input gate.

    An LSTM reads an entry's gradient and the task's loss; the gates read its output, the entry and their last values.
    inner_lr, keep: values of the input and forget gates before any training.
    """

    def __init__(self, hidden_size: int, inner_lr: float, keep: float, *, generator: torch.Generator) -> None:
        super().__init__()
        for name, value in (("inner_lr", inner_lr), ("keep", keep)):
            if not 0 < value < 1:
                raise ValueError(f"{name} is {value}; must lie between 0 and 1")
        self.hidden_size = hidden_size
        self.reader = Cell(4, hidden_size, generator)
        self.gates = nn.ModuleList(linear(hidden_size + 2, 1, gain=0.01, generator=generator) for _ in range(2))
        self.starting = (inner_lr, keep)
        for gate, share in zip(self.gates, self.starting, strict=True):
            nn.init.constant_(gate.get_parameter("bias"), math.log(share / (1 - share)))

    def start(self, params: Params, generator: torch.Generator | None) -> dict[str, Any]:
        numbers = joined(params)
        gates = torch.stack([torch.full_like(numbers, share) for share in self.starting], -1)
        return {"units": numbers.new_zeros(*numbers.shape, 2, self.hidden_size), "gates": gates}

    def forward(
        self, params: Params, gradient: Params, losses: Tensor, memory: dict[str, Any]
    ) -> tuple[Params, dict[str, Any]]:
        slope, number = joined(gradient), joined(params)  # [N, P]
        told = log_and_sign(losses).unsqueeze(1).expand(-1, slope.shape[1], -1)
        read = torch.cat([log_and_sign(slope), told], -1)  # [N, P, 4]
        h, c = memory["units"].flatten(0, 1).unbind(1)
        h, c = self.reader(read.flatten(0, 1), (h, c))
        said = h.view(*slope.shape, -1)
        take, keep = (
            gate(torch.cat([said, number.unsqueeze(-1), last.unsqueeze(-1)], -1)).squeeze(-1).sigmoid()
            for gate, last in zip(self.gates, memory["gates"].unbind(-1), strict=True)
        )
        remembered = {"units": torch.stack([h, c], 1).view_as(memory["units"]), "gates": torch.stack([take, keep], -1)}
        return parted(keep * number - take * slope, params), remembered


@dataclass(frozen=True)
class MetaLearnerLSTMConfig(RuleConfig):
    """Meta-learner LSTM: learned gates on each parameter entry and its gradient."""

    max_grad_norm: float | None = 0.25  # largest norm of the meta-gradient; None: unlimited
    inner_lr: float = 0.01  # value of the input gate before any training
    keep: float = 0.995  # value of the forget gate before any training

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range(self, 0, 1, "inner_lr", "keep", open_ends=True)

    def make_rule(self, generator: torch.Generator) -> MetaLearnerLSTM:
        return MetaLearnerLSTM(self.hidden_size, self.inner_lr, self.keep, generator=generator)
