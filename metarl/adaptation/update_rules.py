"""Adaptation by an update rule with its own memory per task, which is part of the state.

The rules are defined with the methods that use them, e.g. the gates of the MT-net in metarl/fewshot/methods/t_net.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from metarl.adaptation.gradient import GradientAdaptation, Params
from metarl.records import Record


@dataclass(frozen=True)
class UpdateState(Record):
    """A task's parameters and its update rule's memory."""

    params: Params
    memory: dict[str, Any]  # tensors [N, ...], or dicts of them by parameter name


class UpdateRule(Protocol):
    """An update of parameters [N, ...] given the gradient of each task's loss; an nn.Module."""

    def start(self, params: Params, generator: torch.Generator | None) -> dict[str, Any]:
        """The memory before the first step; random parts are drawn from the generator in meta-training."""
        ...

    def __call__(
        self, params: Params, gradient: Params, losses: Tensor, memory: dict[str, Any]
    ) -> tuple[Params, dict[str, Any]]:
        """The parameters and the memory after a step. losses: [N], before the step."""
        ...


class RuleAdaptation(nn.Module):
    """Steps of a rule from the meta-learned parameters of a net; the rule's parameters are meta-learned too.

    gradients: computes each task's gradient, loss and predictions; its step sizes are not used.
    """

    def __init__(self, gradients: GradientAdaptation, rule: UpdateRule) -> None:
        super().__init__()
        self.gradients = gradients
        self.rule: Any = rule

    @property
    def net(self) -> nn.Module:
        return self.gradients.net

    @property
    def adapted(self) -> tuple[str, ...]:
        return self.gradients.adapted

    @property
    def num_steps(self) -> int:
        return self.gradients.num_steps

    def prior(self, num_tasks: int, generator: torch.Generator | None = None) -> UpdateState:
        params = self.gradients.prior(num_tasks)
        return UpdateState(params, self.rule.start({name: params[name] for name in self.adapted}, generator))

    def adapt(self, state: UpdateState, context: Any, num_steps: int | None = None) -> UpdateState:
        """The state after steps on data [N, K, ...]; num_steps: None for the adaptation's own number."""
        return self.path(state, context, num_steps)[-1]

    def path(
        self, state: UpdateState, context: Any, num_steps: int | None = None, *, first_order: bool | None = None
    ) -> list[UpdateState]:
        """The states before the first step and after each step: one more than there are steps."""
        states = [state]
        for _ in range(self.num_steps if num_steps is None else num_steps):
            states.append(self.step(states[-1], context, first_order=first_order))
        return states

    def step(self, state: UpdateState, context: Any, *, first_order: bool | None = None) -> UpdateState:
        """The state after one step of the rule."""
        first_order = self.gradients.first_order if first_order is None else first_order
        with torch.set_grad_enabled(torch.is_grad_enabled() and not first_order):
            gradient, losses = self.gradients.gradient_and_losses(state.params, context)
        own = {name: state.params[name] for name in self.adapted}
        moved, memory = self.rule(own, gradient, losses, state.memory)
        return UpdateState(state.params | moved, memory)

    def predict(self, state: UpdateState, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Outputs [N, Q, out] for inputs x [N, Q, in]; context [N, S, in] for nets that take one."""
        return self.gradients.predict(state.params, x, context)


def params_of(state: Params | UpdateState) -> Params:
    """The parameters in an adaptation state."""
    return state.params if isinstance(state, UpdateState) else state
