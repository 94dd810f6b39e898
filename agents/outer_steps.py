"""The outer steps of gradient-based meta-RL: a trust region, epochs of a clipped surrogate, or one gradient step.

Schulman et al. Trust region policy optimization (2015). Schulman et al. Proximal policy optimization algorithms (2017).
Rothfuss et al. ProMP: proximal meta-policy search (2019): the penalty on the divergence of the inner steps' policies.

Each is called with a batch's objective, moves the adaptation's parameters in place, and returns what is worth logging.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from agents.meta_objective import MetaObjective
from metarl.optim import trust_region_step


class OuterStep(Protocol):
    def __call__(self, objective: MetaObjective) -> dict[str, float]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class TrustRegion:
    """One natural-gradient step, with the divergence measured through the adapted policies."""

    def __init__(
        self,
        parameters: list[nn.Parameter],
        *,
        max_kl: float,
        num_cg_steps: int,
        damping: float,
        curvature_stride: int,
        max_backtracks: int,
        backtrack_ratio: float,
    ) -> None:
        self.parameters = parameters
        self.curvature_stride = curvature_stride
        self.settings: dict[str, Any] = {
            "max_kl": max_kl,
            "num_cg_steps": num_cg_steps,
            "damping": damping,
            "max_backtracks": max_backtracks,
            "backtrack_ratio": backtrack_ratio,
        }

    def __call__(self, objective: MetaObjective) -> dict[str, float]:
        last = len(objective.trial) - 1
        gradient = _flat(torch.autograd.grad(objective.loss(objective.states()), self.parameters))
        product = CurvatureProduct(objective.thinned(self.curvature_stride), self.parameters)

        def evaluate() -> tuple[float, float]:
            states = objective.states()
            return float(objective.loss(states)), float(objective.divergence(states, last))

        step = trust_region_step(self.parameters, gradient, product, evaluate, **self.settings)
        return {
            "policy_gradient_loss": step.loss,
            "loss_before": step.loss_before,
            "kl_adapted": step.kl,
            "accepted": float(step.accepted),
            "num_backtracks": float(step.num_backtracks),
            "grad_norm": float(gradient.norm()),
        }

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class GradientEpochs:
    """Adam on the whole batch, epoch after epoch: of ProMP's clipped and penalised objective, or one plain step.

    clip: of the surrogate's ratio; None: not clipped. kl_penalty: the coefficient of each inner step's divergence, from
    the policy that sampled its data. target_kl: where given, a coefficient is halved after a batch in which its
    divergence ended below target_kl / 1.5, and doubled above 1.5 target_kl.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        *,
        learning_rate: float,
        num_epochs: int,
        clip: float | None,
        kl_penalty: float,
        target_kl: float | None,
        num_inner_steps: int,
        max_grad_norm: float | None,
    ) -> None:
        self.parameters = parameters
        self.optimizer = torch.optim.Adam(parameters, lr=learning_rate)
        self.num_epochs, self.clip, self.target_kl = num_epochs, clip, target_kl
        self.kl_penalties = [kl_penalty] * num_inner_steps
        self.max_grad_norm = float("inf") if max_grad_norm is None else max_grad_norm

    def __call__(self, objective: MetaObjective) -> dict[str, float]:
        first_loss, norm = None, torch.zeros(())
        for _ in range(self.num_epochs):
            loss, _ = self._loss(objective)
            first_loss = float(loss.detach()) if first_loss is None else first_loss
            self.optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
            self.optimizer.step()
        with torch.no_grad():
            loss, divergences = self._loss(objective)
            adapted = objective.divergence(objective.states(), len(objective.trial) - 1)
        self._adapt_penalties([float(value) for value in divergences])
        metrics = {f"kl_inner_{k}": float(value) for k, value in enumerate(divergences)}
        metrics |= {f"kl_penalty_{k}": value for k, value in enumerate(self.kl_penalties)}
        return metrics | {
            "policy_gradient_loss": float(loss),
            "loss_before": float("nan") if first_loss is None else first_loss,
            "kl_adapted": float(adapted),
            "grad_norm": float(norm),
        }

    def _loss(self, objective: MetaObjective) -> tuple[Tensor, list[Tensor]]:
        """The penalised loss, and the divergences of the policies of the inner steps."""
        states = objective.states()
        loss = objective.loss(states, self.clip)
        divergences = [objective.divergence(states, k) for k in range(len(self.kl_penalties))]
        for penalty, divergence in zip(self.kl_penalties, divergences, strict=True):
            loss = loss + penalty * divergence / len(divergences)
        return loss, divergences

    def _adapt_penalties(self, divergences: list[float]) -> None:
        if self.target_kl is None:
            return
        for k, divergence in enumerate(divergences):
            if divergence < self.target_kl / 1.5:
                self.kl_penalties[k] /= 2
            elif divergence > self.target_kl * 1.5:
                self.kl_penalties[k] *= 2

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "kl_penalties": list(self.kl_penalties)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.kl_penalties = list(state["kl_penalties"])


class CurvatureProduct:
    """The second derivative of the divergence of the adapted policies, where it is zero, times a vector.

    There it is the Fisher matrix of the meta-parameters, seen through the inner steps. By double back-propagation: the
    graph of the first derivative is built once and gone through again for each vector.
    """

    def __init__(self, objective: MetaObjective, parameters: list[nn.Parameter]) -> None:
        divergence = objective.divergence(objective.states(), len(objective.trial) - 1)
        self._parameters = parameters
        self._slope = _flat(torch.autograd.grad(divergence, parameters, create_graph=True))

    def __call__(self, vector: Tensor) -> Tensor:
        along = self._slope @ vector
        return _flat(torch.autograd.grad(along, self._parameters, retain_graph=True)).detach()


def _flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
