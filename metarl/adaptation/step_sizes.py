"""Step sizes of gradient adaptation: fixed, learned per parameter entry, or learned per layer and step.

Li et al. Meta-SGD: learning to learn quickly for few-shot learning (2017).
Antoniou, Edwards, Storkey. How to train your MAML (2019).

Each is called as `step_sizes(name, step)` with the name of a parameter and the step number, from zero, and returns the
factor on the gradient: a number, or a tensor that broadcasts against the parameter [...].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from metarl.nets.mlp import key_of


class FixedStepSizes(nn.Module):
    """One step size for all parameters, or one per step; the last is used for all later steps."""

    def __init__(self, inner_lr: float | Sequence[float]) -> None:
        super().__init__()
        self.inner_lr = (inner_lr,) if isinstance(inner_lr, (int, float)) else tuple(inner_lr)
        if not self.inner_lr or min(self.inner_lr) <= 0:
            raise ValueError(f"inner_lr is {inner_lr}; must be one or more positive numbers")

    def forward(self, name: str, step: int) -> float:
        return self.inner_lr[min(step, len(self.inner_lr) - 1)]


class PerParameterStepSizes(nn.Module):
    """Meta-SGD: a learned step size, of either sign, for each entry of each parameter; constant over steps.

    inner_lr: the initial value, or the range from which initial values are drawn.
    """

    def __init__(
        self, params: Mapping[str, Tensor], inner_lr: float | tuple[float, float], generator: torch.Generator
    ) -> None:
        super().__init__()
        low, high = (inner_lr, inner_lr) if isinstance(inner_lr, (int, float)) else inner_lr
        if not 0 < low <= high:
            raise ValueError(f"inner_lr is {inner_lr}; must be a positive number or a range of positive numbers")
        self.values = nn.ParameterDict(
            {
                key_of(name): torch.empty_like(value).uniform_(low, high, generator=generator)
                if low < high
                else torch.full_like(value, low)
                for name, value in params.items()
            }
        )

    def forward(self, name: str, step: int) -> Tensor:
        return self.values[key_of(name)]


class PerStepStepSizes(nn.Module):
    """MAML++: a learned step size per layer and step, for `num_steps` steps; the last is used for all later steps.

    Their logarithms are learned, so updates are relative and no step size turns negative. A layer is a module that
    holds parameters; a parameter outside any module (a log standard deviation) is its own layer.
    """

    def __init__(self, params: Mapping[str, Tensor], inner_lr: float, num_steps: int) -> None:
        super().__init__()
        if inner_lr <= 0:
            raise ValueError(f"inner_lr is {inner_lr}; must be positive")
        self.logs = nn.ParameterDict(
            {key_of(_layer(name)): value.new_full((num_steps,), math.log(inner_lr)) for name, value in params.items()}
        )

    def forward(self, name: str, step: int) -> Tensor:
        logs = self.logs[key_of(_layer(name))]  # [num_steps]
        return logs[min(step, len(logs) - 1)].exp()


def _layer(name: str) -> str:
    return name.rpartition(".")[0] or name
