"""What agents that are trained on somebody's actions share: one step of Adam per batch, and what of it is saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from metarl.optim import gradient_step, load_adam
from metarl.parallel import share_of_mean


class ImitationConfig(Protocol):
    """The settings of the steps."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def final_learning_rate(self) -> float: ...
    @property
    def max_grad_norm(self) -> float: ...


class ImitatingAgent:
    """Base class: the net, its optimiser, and the number of updates so far; an agent adds how it acts."""

    config: Any  # an `ImitationConfig`
    net: Any  # a module

    def __init__(self, config: ImitationConfig, net: nn.Module, num_iterations: int) -> None:
        self.config, self.net, self.num_iterations = config, net, num_iterations
        self.optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate, fused=True)
        self.num_updates = 0

    def _raise(self, likelihood: Tensor) -> Tensor:
        """Step towards a higher mean log-likelihood []; the learning rate changes linearly. Returns the gradient norm.

        Raises:
            FloatingPointError: when a parameter is no longer finite; the agent is unusable then.
        """
        start, end = self.config.learning_rate, self.config.final_learning_rate
        norm = gradient_step(
            self.optimizer,
            share_of_mean(-likelihood),
            max_norm=self.config.max_grad_norm,
            learning_rate=start + (end - start) * self.num_updates / self.num_iterations,
        )
        self.num_updates += 1
        return norm

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "num_updates": self.num_updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        load_adam(self.optimizer, state["optimizer"])
        self.num_updates = state["num_updates"]
