"""The outer steps of gradient-based meta-RL: a trust region, epochs of a clipped surrogate, or one gradient step.

Schulman et al. Trust region policy optimization (2015). Schulman et al. Proximal policy optimization algorithms (2017).
Rothfuss et al. ProMP: proximal meta-policy search (2019): the penalty on the divergence of the inner steps' policies.

Each is called with a batch's objective, moves the adaptation's parameters in place, and returns metrics to log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from agents.meta_objective import MetaObjective
from metarl.optim import gradient_step, load_adam, trust_region_step
from metarl.parallel import total, total_number
from metarl.torch_settings import fast_matmul


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

    @fast_matmul()
    def __call__(self, objective: MetaObjective) -> dict[str, float]:
        last = len(objective.trial) - 1
        parts = objective.parts()
        gradients = [
            part.share * _flat(torch.autograd.grad(part.loss(part.states()), self.parameters)) for part in parts
        ]
        gradient = total(torch.stack(gradients).sum(0))
        product = CurvatureProduct(objective.thinned(self.curvature_stride).parts(), self.parameters)

        def evaluate() -> tuple[float, float]:
            values = torch.zeros(2)
            for part in parts:
                states = part.states()
                values += part.share * torch.stack([part.loss(states), part.divergence(states, last)]).cpu()
            loss, kl = total(values).tolist()
            return loss, kl

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
    """Epochs of Adam on the whole batch, on ProMP's clipped and penalised objective; or one plain gradient step.

    clip: clipping range of the surrogate's ratio; None: no clipping. kl_penalty: the coefficient of each inner step's
    KL divergence from the policy that sampled its data. target_kl: if given, a coefficient is halved after a batch in
    which its divergence ended below target_kl / 1.5, and doubled above 1.5 target_kl.
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
        self.optimizer = torch.optim.Adam(parameters, lr=learning_rate, fused=True)
        self.num_epochs, self.clip, self.target_kl = num_epochs, clip, target_kl
        self.kl_penalties = [kl_penalty] * num_inner_steps
        self.max_grad_norm = float("inf") if max_grad_norm is None else max_grad_norm

    @fast_matmul()
    def __call__(self, objective: MetaObjective) -> dict[str, float]:
        parts = objective.parts()
        first_loss, norm = None, torch.zeros(())
        for _ in range(self.num_epochs):
            losses: list[Tensor] = []
            norm = gradient_step(self.optimizer, self._losses(parts, losses), max_norm=self.max_grad_norm)
            first_loss = total_number(sum(map(float, losses))) if first_loss is None else first_loss
        after, *divergences, adapted = self._measured(parts)
        self._adapt_penalties(divergences)
        metrics = {f"kl_inner_{k}": value for k, value in enumerate(divergences)}
        metrics |= {f"kl_penalty_{k}": value for k, value in enumerate(self.kl_penalties)}
        return metrics | {
            "policy_gradient_loss": after,
            "loss_before": float("nan") if first_loss is None else first_loss,
            "kl_adapted": adapted,
            "grad_norm": float(norm),
        }

    def _measured(self, parts: Sequence[MetaObjective]) -> list[float]:
        """The loss, and the KL divergences of the policies of the inner steps and of the adapted policy."""
        measured = torch.zeros(len(self.kl_penalties) + 2)
        with torch.no_grad():
            for part in parts:
                loss, divergences = self._loss(part)
                adapted = part.divergence(part.states(), len(part.trial) - 1)
                measured += part.share * torch.stack([loss, *divergences, adapted]).cpu()
        return total(measured).tolist()

    def _losses(self, parts: Sequence[MetaObjective], values: list[Tensor]) -> Iterator[Tensor]:
        """Each part's contribution to the loss; its value is appended to `values`."""
        for part in parts:
            loss = part.share * self._loss(part)[0]
            values.append(loss.detach())
            yield loss

    def _loss(self, objective: MetaObjective) -> tuple[Tensor, list[Tensor]]:
        """The penalised loss, and the KL divergences of the policies of the inner steps."""
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
        load_adam(self.optimizer, state["optimizer"])
        self.kl_penalties = list(state["kl_penalties"])


class CurvatureProduct:
    """Products of a vector with the Hessian of the adapted policies' KL divergence, where the divergence is zero.

    There, the Hessian is the Fisher matrix of the meta-parameters through the inner steps. The graph of the first
    derivative is built once per part of the tasks and differentiated again for each vector.
    """

    def __init__(self, parts: Sequence[MetaObjective], parameters: list[nn.Parameter]) -> None:
        self._parameters = parameters
        self._slopes = []
        for part in parts:
            divergence = part.share * part.divergence(part.states(), len(part.trial) - 1)
            self._slopes.append(_flat(torch.autograd.grad(divergence, parameters, create_graph=True)))

    def __call__(self, vector: Tensor) -> Tensor:
        product = torch.zeros_like(vector)
        for slope in self._slopes:
            product += _flat(torch.autograd.grad(slope @ vector, self._parameters, retain_graph=True))
        return total(product)


def _flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
