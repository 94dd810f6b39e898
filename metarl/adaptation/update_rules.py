"""Adaptation by a rule that has a memory of its own for each task: what it remembers is part of the state.

Kingma, Ba. Adam: a method for stochastic optimization (2015), without momentum as Nichol et al. (2018) have it.
Lee, Choi. Gradient-based meta-learning with learned layerwise metric and subspace (2018): the gates of the MT-net.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from metarl.adaptation.gradient import GradientAdaptation, Params
from metarl.nets.mlp import key_of
from metarl.records import Record


@dataclass(frozen=True)
class UpdateState(Record):
    """A task's parameters, and what its update rule remembers."""

    params: Params
    memory: dict[str, Any]  # tensors [N, ...], or dicts of them by the parameter's name


class UpdateRule(Protocol):
    """How parameters [N, ...] move, given the gradient of each task's loss; an nn.Module."""

    def start(self, params: Params, generator: torch.Generator | None) -> dict[str, Any]:
        """What it remembers before the first step; what is drawn in meta-training is drawn from the generator."""
        ...

    def __call__(
        self, params: Params, gradient: Params, losses: Tensor, memory: dict[str, Any]
    ) -> tuple[Params, dict[str, Any]]:
        """The parameters after a step, and what is remembered then. losses: [N], before it."""
        ...


class RuleAdaptation(nn.Module):
    """Steps of a rule from the meta-learned parameters of a net; the rule's own parameters are meta-learned too.

    gradients: gives each task's gradient, loss and predictions; its own step sizes are not used.
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
        """The state after steps on data [N, K, ...]; `num_steps` of them, or the adaptation's own number."""
        return self.path(state, context, num_steps)[-1]

    def path(
        self, state: UpdateState, context: Any, num_steps: int | None = None, *, first_order: bool | None = None
    ) -> list[UpdateState]:
        """The states before the first step, after it, and so on to the last: one more than steps."""
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

    def losses(self, state: UpdateState, data: Any) -> Tensor:
        """Each task's loss on data [N, Q, ...]: [N]."""
        return self.gradients.losses(state.params, data)

    def predict(self, state: UpdateState, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Outputs [N, Q, out] for inputs x [N, Q, in]; context [N, S, in] for nets that take one."""
        return self.gradients.predict(state.params, x, context)


class AdamWithoutMomentum(nn.Module):
    """Adam whose beta1 is zero: gradients over the root of the mean of their squares so far.

    Every task begins with what was handed on (`hand_on`) from tasks before it; nothing, as long as there were none.
    For first order only: the root has no slope where a gradient is zero.

    params: those that adapt, by name, without an axis of tasks.
    """

    count: Tensor  # steps that squares were gathered in

    def __init__(
        self, params: Mapping[str, Tensor], inner_lr: float, *, beta: float = 0.999, epsilon: float = 1e-8
    ) -> None:
        super().__init__()
        self.inner_lr, self.beta, self.epsilon = inner_lr, beta, epsilon
        self.register_buffer("count", next(iter(params.values())).new_zeros(()))
        self._buffer_of = {name: f"square_{number}" for number, name in enumerate(params)}
        for name, value in params.items():
            self.register_buffer(self._buffer_of[name], torch.zeros_like(value))

    def start(self, params: Params, generator: torch.Generator | None) -> dict[str, Any]:
        num_tasks = len(next(iter(params.values())))
        square = {name: self.get_buffer(self._buffer_of[name]) for name in params}
        return {
            "count": self.count.expand(num_tasks),
            "square": {name: value.expand(num_tasks, *value.shape) for name, value in square.items()},
        }

    def hand_on(self, memory: dict[str, Any]) -> None:
        """Later tasks begin with the mean of what these remember."""
        self.count.copy_(memory["count"].mean())
        for name, square in memory["square"].items():
            self.get_buffer(self._buffer_of[name]).copy_(square.mean(0))

    def forward(
        self, params: Params, gradient: Params, losses: Tensor, memory: dict[str, Any]
    ) -> tuple[Params, dict[str, Any]]:
        count = memory["count"] + 1
        square = {
            name: self.beta * v + (1 - self.beta) * gradient[name].square() for name, v in memory["square"].items()
        }
        correction = (1 - self.beta**count).sqrt()  # [N]
        moved = {}
        for name, value in params.items():
            root = square[name].sqrt() / _over(correction, value)
            moved[name] = value - self.inner_lr * gradient[name] / (root + self.epsilon)
        return moved, {"count": count, "square": square}


class GatedDescent(nn.Module):
    """Gradient descent on the units of each layer that a learned gate lets adapt.

    A gate is a coin for each unit, a filter or an output, that is tossed for each task in meta-training: shut or open
    in value, with the slope of a soft one (Gumbel-softmax, Jang et al. 2017, at temperature one). At meta-test each
    gate is as it is likelier to be. Units are the first axis of matrices, and all numbers of vectors.
    """

    def __init__(self, params: Mapping[str, Tensor], inner_lr: float, *, open_share: float = 0.9) -> None:
        super().__init__()
        self.inner_lr = inner_lr
        odds = math.log(open_share / (1 - open_share))
        self.logits = nn.ParameterDict(
            {key_of(name): value.new_full((len(value),), odds) for name, value in params.items()}
        )

    def start(self, params: Params, generator: torch.Generator | None) -> dict[str, Any]:
        return {"gates": {name: self._gate(name, value, generator) for name, value in params.items()}}

    def _gate(self, name: str, value: Tensor, generator: torch.Generator | None) -> Tensor:
        """Ones and zeros [N, out, 1, ...]."""
        logits = self.logits[key_of(name)].expand(len(value), -1)  # [N, out]
        if generator is None:
            gate = (logits > 0).to(logits.dtype)
        else:
            uniform = torch.rand(logits.shape, generator=generator, dtype=logits.dtype, device=logits.device)
            soft = (logits + torch.logit(uniform, eps=1e-6)).sigmoid()
            gate = (soft > 0.5).to(soft.dtype) + (soft - soft.detach())
        return gate.view(*gate.shape, *(1,) * (value.ndim - 2))

    def forward(
        self, params: Params, gradient: Params, losses: Tensor, memory: dict[str, Any]
    ) -> tuple[Params, dict[str, Any]]:
        gates = memory["gates"]
        return {name: v - self.inner_lr * gates[name] * gradient[name] for name, v in params.items()}, memory


def params_of(state: Params | UpdateState) -> Params:
    """The parameters in a state of adaptation."""
    return state.params if isinstance(state, UpdateState) else state


def _over(factor: Tensor, value: Tensor) -> Tensor:
    """[N] as it meets a tensor [N, ...]."""
    return factor.view(-1, *(1,) * (value.ndim - 1))
