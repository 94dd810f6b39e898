"""Implicit meta-gradients: adapt to a regularised optimum, and differentiate the optimum instead of the way to it.

Rajeswaran et al. Meta-learning with implicit gradients (2019).

With phi the minimum of loss(phi) + lambda / 2 |phi - theta|^2, the meta-gradient of a query loss is the solution u of
(I + H / lambda) u = d query / d phi, where H is the Hessian of the loss at phi. Conjugate gradient solves it for all
tasks at once; memory does not grow with the number of inner steps.

Deviations: 1. every task takes the same number of conjugate-gradient steps, as they run side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import grad

from metarl.adaptation.gradient import GradientAdaptation, Params, StepSizes, TaskLoss
from metarl.optim import conjugate_gradient


class ImplicitAdaptation(GradientAdaptation):
    """Gradient descent on the task's loss with a pull towards where it started; its meta-gradient is implicit.

    strength: lambda above. num_cg_steps: of conjugate gradient. damping: added to the system's diagonal. The step
    sizes receive no meta-gradient. Other arguments: as those of `GradientAdaptation`.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        loss: TaskLoss,
        step_sizes: StepSizes,
        *,
        strength: float,
        num_cg_steps: int = 5,
        damping: float = 0.0,
        **settings: Any,
    ) -> None:
        if strength <= 0:
            raise ValueError(f"strength is {strength}; it must be positive")
        if num_cg_steps < 1:
            raise ValueError(f"num_cg_steps is {num_cg_steps}; it must be at least 1")
        if damping < 0:
            raise ValueError(f"damping is {damping}; it must be 0 or more")
        settings = {"batching": "vmap"} | settings
        if settings["batching"] == "batched":
            raise ValueError("batching is 'batched'; implicit gradients take vmap, chunks, loop and auto")
        super().__init__(net, loss, step_sizes, **settings)
        if len(self.adapted) < len(self._dims):
            raise ValueError("adapted names some parameters only; implicit gradients need all of them to adapt")
        self.strength, self.num_cg_steps, self.damping = strength, num_cg_steps, damping

    def path(
        self, state: Params, context: Any, num_steps: int | None = None, *, first_order: bool | None = None
    ) -> list[Params]:
        """The states from the start to the last; gradients flow through the last one, by the implicit function."""
        anchor = {name: value.detach() for name, value in state.items()}
        states = [anchor]
        with torch.no_grad():
            if self.batching == "auto":
                self.batching = self._fastest(anchor, context)
            for step in range(self.num_steps if num_steps is None else num_steps):
                at = states[-1]
                gradient = self.gradient(at, context)
                states.append(
                    {
                        name: at[name]
                        - self.step_sizes(name, step) * (gradient[name] + self.strength * (at[name] - anchor[name]))
                        for name in at
                    }
                )
        if not torch.is_grad_enabled() or len(states) == 1:
            return [state, *states[1:]]
        return [state, *states[1:-1], self._implicit(state, states[-1], context)]

    def _implicit(self, start: Params, reached: Params, context: Any) -> Params:
        """`reached` in value; in gradient, the optimum as a function of `start`."""

        def solve(*gradients: Tensor) -> tuple[Tensor, ...]:
            right = dict(zip(reached, gradients, strict=True))
            solution = conjugate_gradient(lambda v: self._system(reached, context, v), right, self.num_cg_steps)
            return tuple(solution.values())

        values = _Implicit.apply(solve, len(reached), *reached.values(), *start.values())
        return dict(zip(reached, values, strict=True))

    def _system(self, state: Params, context: Any, vector: Params) -> Params:
        """(1 + damping) v + H v / strength for each task."""

        def product(params: Params, data: Any, vector: Params) -> Params:
            def slope(params: Params) -> Tensor:
                gradient = grad(self.loss)(params, data)
                return sum((gradient[name] * vector[name]).sum() for name in vector)  # type: ignore[return-value]

            return grad(slope)(params)

        curvature = self._over_tasks(product)(state, context, vector)
        return {name: (1 + self.damping) * v + curvature[name] / self.strength for name, v in vector.items()}

    def _fastest(self, state: Params, context: Any) -> Any:
        return "vmap"  # there is no way back through the steps to measure, and conjugate gradient is batched best


class _Implicit(torch.autograd.Function):
    """Values of an optimum whose gradient is solved for."""

    @staticmethod
    def forward(ctx: Any, solve: Callable[..., Any], size: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.solve, ctx.size = solve, size
        return tuple(tensor.clone() for tensor in tensors[:size])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (None, None, *(None,) * ctx.size, *ctx.solve(*gradients))
