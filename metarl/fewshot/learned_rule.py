"""Learned update rules: a small LSTM applied to each parameter entry separately, with shared weights.

Gradients and losses are given to it as a logarithm and a sign (Andrychowicz et al. Learning to learn by gradient
descent by gradient descent, 2016, appendix A).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metarl.adaptation.batching import Batching
from metarl.adaptation.gradient import GradientAdaptation, Params, supervised_loss
from metarl.adaptation.step_sizes import FixedStepSizes
from metarl.adaptation.update_rules import RuleAdaptation, UpdateRule
from metarl.checks import at_least, rounds, widths
from metarl.fewshot.gradient_learner import GradientLearner, NetConfig, OuterStepsConfig
from metarl.fewshot.problem import Problem
from metarl.nets.mlp import linear

_RANGE = 10  # range of the logarithm: values below exp(-10) are encoded linearly


def log_and_sign(value: Tensor) -> Tensor:
    """[...] -> [..., 2]: the scaled log magnitude (at least -1) and the sign; tiny values as -1 and a scaled value."""
    size = value.abs()
    told = size >= math.exp(-_RANGE)
    log = torch.where(told, size.clamp(min=math.exp(-_RANGE)).log() / _RANGE, -1.0)
    return torch.stack([log, torch.where(told, value.sign(), value * math.exp(_RANGE))], -1)


class Cell(nn.Module):
    """An LSTM cell whose gates are one matrix product."""

    def __init__(self, input_size: int, hidden_size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.net = linear(input_size + hidden_size, 4 * hidden_size, gain=1.0, generator=generator)
        with torch.no_grad():
            self.net.bias[hidden_size : 2 * hidden_size] = 1.0  # retains its memory before any training

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        hidden, cell = state
        size = hidden.shape[-1]
        w = self.net.weight
        zeros = torch.zeros_like(self.net.bias)
        return torch.lstm_cell(x, (hidden, cell), w[:, :-size], w[:, -size:], self.net.bias, zeros)


def joined(params: Params) -> Tensor:
    """All parameters of each task in one vector: [N, P]."""
    return torch.cat([value.flatten(1) for value in params.values()], 1)


def parted(numbers: Tensor, like: Params) -> Params:
    """Vectors [N, P] as parameters of the shapes of `like`."""
    parts = numbers.split([value[0].numel() for value in like.values()], 1)
    return {name: part.view_as(value) for part, (name, value) in zip(parts, like.items(), strict=True)}


@dataclass(frozen=True)
class RuleConfig(OuterStepsConfig, NetConfig):
    """A learner with a meta-learned update rule and initialisation."""

    first_order: bool = True  # whether the gradients given to the rule are constants in the outer gradient
    num_inner_steps: int = 5  # number of steps of the rule per task in meta-training
    batching: Batching = "vmap"  # way of batching over tasks; results agree up to rounding
    chunk_size: int = 8  # number of tasks per chunk, with batching "chunks"
    hidden_size: int = 20  # hidden units of each LSTM

    def __post_init__(self) -> None:
        OuterStepsConfig.__post_init__(self)
        NetConfig.__post_init__(self)
        rounds(self, "num_inner_steps")
        widths(self, "hidden_size")
        at_least(self, 1, "chunk_size")

    def make_rule(self, generator: torch.Generator) -> UpdateRule:
        raise NotImplementedError

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> GradientLearner:
        net = self.make_net(problem, generator)
        gradients = GradientAdaptation(
            net,
            supervised_loss(net, problem.losses),
            FixedStepSizes(1.0),
            num_steps=self.num_inner_steps,
            first_order=self.first_order,
            batching=self.batching,
            chunk_size=self.chunk_size,
        )
        return GradientLearner(self, RuleAdaptation(gradients, self.make_rule(generator)), problem, num_iterations)
