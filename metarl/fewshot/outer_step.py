"""The meta-update common to few-shot learners: Adam on all meta-learned parameters, with a schedule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from metarl.checks import literals, not_negative, positive
from metarl.fewshot.source import LearnsFromEpisodes
from metarl.optim import gradient_step, load_adam
from metarl.parallel import share_of_mean


@dataclass(frozen=True)
class OuterConfig(LearnsFromEpisodes):
    """Settings of the optimisation of meta-learned parameters."""

    outer_lr: float = 1e-3  # step size of the meta-update
    final_outer_lr: float | None = 1e-5  # step size at the last iteration, reached along half a cosine; None: constant
    max_grad_norm: float | None = None  # largest norm of the meta-gradient; None: unlimited
    _: KW_ONLY
    information_cost: float = 0.0  # loss per nat stored in weights that do not adapt (meta-regularisation); 0: none

    def __post_init__(self) -> None:
        literals(self)
        not_negative(self, "information_cost")
        positive(self, "outer_lr", "final_outer_lr", "max_grad_norm")


class MetaLearned(Protocol):
    """What is meta-learned: parameters, as an nn.Module has them."""

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...


class OuterStep:
    """Adam on a module's parameters for `num_iterations` steps; its saved state includes the module."""

    def __init__(self, config: OuterConfig, module: MetaLearned, num_iterations: int) -> None:
        self.config, self.module, self.num_iterations = config, module, num_iterations
        self.optimizer = torch.optim.Adam(module.parameters(), lr=config.outer_lr, fused=True)
        self.num_updates = 0

    @property
    def progress(self) -> float:
        """The completed fraction of the iterations."""
        return self.num_updates / self.num_iterations

    def __call__(self, loss: Tensor) -> float:
        """One step on this loss, a mean over tasks; returns the gradient norm before clipping."""
        max_norm = self.config.max_grad_norm or math.inf
        norm = gradient_step(
            self.optimizer, share_of_mean(loss), max_norm=max_norm, learning_rate=self._learning_rate()
        )
        self.num_updates += 1
        return float(norm)

    def _learning_rate(self) -> float:
        start, end = self.config.outer_lr, self.config.final_outer_lr
        return start if end is None else end + (start - end) * (1 + math.cos(math.pi * self.progress)) / 2

    def state_dict(self) -> dict[str, Any]:
        return {
            "adaptation": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "num_updates": self.num_updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.module.load_state_dict(state["adaptation"])
        load_adam(self.optimizer, state["optimizer"])
        self.num_updates = state["num_updates"]
