"""Learned update rules: a small LSTM that moves each number of a net by itself, with weights that all of them share.

Andrychowicz et al. Learning to learn by gradient descent by gradient descent (2016): it says how far to go.
Ravi, Larochelle. Optimization as a model for few-shot learning (2017): the number is the cell state of another LSTM,
whose gates say how much of it is kept and how much of the gradient is taken away.

Gradients and losses are told as a logarithm and a sign (Andrychowicz et al., appendix A).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from metarl.adaptation.gradient import Params
from metarl.nets.mlp import linear

_RANGE = 10  # of the logarithm: what is smaller than its exponential's inverse is told in proportion


def log_and_sign(value: Tensor) -> Tensor:
    """[...] -> [..., 2]: the logarithm of its size in [-1, ...) and its sign; what is tiny as -1 and in proportion."""
    size = value.abs()
    told = size >= math.exp(-_RANGE)
    log = torch.where(told, size.clamp(min=math.exp(-_RANGE)).log() / _RANGE, -1.0)
    return torch.stack([log, torch.where(told, value.sign(), value * math.exp(_RANGE))], -1)


class LearnedOptimizer(nn.Module):
    """Two LSTM layers read a number's gradient; what they say, times `scale`, is added to it.

    scale: small, so that untrained updates are.
    """

    def __init__(self, hidden_size: int, scale: float, *, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden_size, self.scale = hidden_size, scale
        self.first = _Cell(2, hidden_size, generator)
        self.second = _Cell(hidden_size, hidden_size, generator)
        self.head = linear(hidden_size, 1, gain=1.0, generator=generator)

    def start(self, params: Params, generator: torch.Generator | None) -> dict[str, Any]:
        return {"units": _joined(params).new_zeros(*_joined(params).shape, 4, self.hidden_size)}  # [N, P, 4, H]

    def forward(
        self, params: Params, gradient: Params, losses: Tensor, memory: dict[str, Any]
    ) -> tuple[Params, dict[str, Any]]:
        read = log_and_sign(_joined(gradient)).flatten(0, 1)  # [N * P, 2]
        units = memory["units"]
        h1, c1, h2, c2 = units.flatten(0, 1).unbind(1)
        h1, c1 = self.first(read, (h1, c1))
        h2, c2 = self.second(h1, (h2, c2))
        move = self.scale * self.head(h2).view(units.shape[:2])
        remembered = torch.stack([h1, c1, h2, c2], 1).view(units.shape)
        return _parted(_joined(params) + move, params), {"units": remembered}


class MetaLearnerLSTM(nn.Module):
    """Each number of the net is a cell state: kept by a forget gate, and its gradient taken away by an input gate.

    An LSTM reads a number's gradient and the task's loss; the gates see what it says, the number and their last values.
    inner_lr, keep: what the input and the forget gate are before any training.
    """

    def __init__(self, hidden_size: int, inner_lr: float, keep: float, *, generator: torch.Generator) -> None:
        super().__init__()
        for name, value in (("inner_lr", inner_lr), ("keep", keep)):
            if not 0 < value < 1:
                raise ValueError(f"{name} is {value}; it must lie between 0 and 1")
        self.hidden_size = hidden_size
        self.reader = _Cell(4, hidden_size, generator)
        self.gates = nn.ModuleList(linear(hidden_size + 2, 1, gain=0.01, generator=generator) for _ in range(2))
        self.starting = (inner_lr, keep)
        for gate, share in zip(self.gates, self.starting, strict=True):
            nn.init.constant_(gate.get_parameter("bias"), math.log(share / (1 - share)))

    def start(self, params: Params, generator: torch.Generator | None) -> dict[str, Any]:
        numbers = _joined(params)
        gates = torch.stack([torch.full_like(numbers, share) for share in self.starting], -1)
        return {"units": numbers.new_zeros(*numbers.shape, 2, self.hidden_size), "gates": gates}

    def forward(
        self, params: Params, gradient: Params, losses: Tensor, memory: dict[str, Any]
    ) -> tuple[Params, dict[str, Any]]:
        slope, number = _joined(gradient), _joined(params)  # [N, P]
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
        return _parted(keep * number - take * slope, params), remembered


class _Cell(nn.Module):
    """An LSTM cell whose gates are one matrix product."""

    def __init__(self, input_size: int, hidden_size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.net = linear(input_size + hidden_size, 4 * hidden_size, gain=1.0, generator=generator)
        with torch.no_grad():
            self.net.bias[hidden_size : 2 * hidden_size] = 1.0  # it remembers before it has learned to

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        hidden, cell = state
        size = hidden.shape[-1]
        w = self.net.weight
        zeros = torch.zeros_like(self.net.bias)
        return torch.lstm_cell(x, (hidden, cell), w[:, :-size], w[:, -size:], self.net.bias, zeros)


def _joined(params: Params) -> Tensor:
    """All numbers of each task: [N, P]."""
    return torch.cat([value.flatten(1) for value in params.values()], 1)


def _parted(numbers: Tensor, like: Params) -> Params:
    """[N, P] as parameters again."""
    parts = numbers.split([value[0].numel() for value in like.values()], 1)
    return {name: part.view_as(value) for part, (name, value) in zip(parts, like.items(), strict=True)}
