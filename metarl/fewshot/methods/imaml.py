"""iMAML: adapt to a regularised optimum, and differentiate the optimum implicitly instead of the inner steps.

Rajeswaran et al. Meta-learning with implicit gradients (2019).

With phi the minimum of loss(phi) + lambda / 2 |phi - theta|^2, the meta-gradient of a query loss is the solution u of
(I + H / lambda) u = d query / d phi, where H is the Hessian of the loss at phi. Conjugate gradient solves it for all
tasks at once; memory does not grow with the number of inner steps. After a few steps phi is not yet the minimum and H
may not be positive definite, so the system may be damped: ((1 + damping) I + H / (lambda + strength_damping)) u.

Deviations: 1. every task takes the same number of conjugate-gradient steps, because tasks are batched. 2. every inner
step includes the regulariser, as in the paper; in the published code (aravindr93/imaml_dev) inner steps are plain, one
step of the regulariser follows them, and there is none at meta-test. 3. inner steps may be clipped to a maximum norm.
An implicit gradient does not keep the initialisation where plain gradient steps are stable, and longer meta-training
leaves that region.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad

from metarl.adaptation.gradient import GradientAdaptation, Params, StepSizes, TaskLoss, supervised_loss
from metarl.adaptation.step_sizes import FixedStepSizes
from metarl.checks import not_negative, positive, rounds
from metarl.fewshot.gradient_learner import GradientLearner, InnerStepsConfig, MetaGradientConfig
from metarl.fewshot.problem import Problem
from metarl.optim import conjugate_gradient


class ImplicitAdaptation(GradientAdaptation):
    """Gradient descent on the task's loss, regularised towards the start; the meta-gradient is implicit.

    strength: lambda above. num_cg_steps: steps of conjugate gradient. damping, strength_damping: see above. max_move:
    the largest norm, over all parameters, of a task's inner step; None: unlimited. The step sizes receive no
    meta-gradient. Other arguments: as for `GradientAdaptation`.
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
        strength_damping: float = 0.0,
        max_move: float | None = None,
        **settings: Any,
    ) -> None:
        if strength <= 0:
            raise ValueError(f"strength is {strength}; must be positive")
        if num_cg_steps < 1:
            raise ValueError(f"num_cg_steps is {num_cg_steps}; must be at least 1")
        for name, value in (("damping", damping), ("strength_damping", strength_damping)):
            if value < 0:
                raise ValueError(f"{name} is {value}; must be 0 or more")
        super().__init__(net, loss, step_sizes, **settings)
        if len(self.adapted) < len(self._dims):
            raise ValueError("adapted names some parameters only; implicit gradients need all of them to adapt")
        if max_move is not None and max_move <= 0:
            raise ValueError(f"max_move is {max_move}; must be positive")
        self.strength, self.num_cg_steps, self.max_move = strength, num_cg_steps, max_move
        self.damping, self.strength_damping = damping, strength_damping

    def path(
        self, state: Params, context: Any, num_steps: int | None = None, *, first_order: bool | None = None
    ) -> list[Params]:
        """The states from first to last; gradients flow through the last one only, by implicit differentiation."""
        anchor = {name: value.detach() for name, value in state.items()}
        states = [anchor]
        with torch.no_grad():
            for step in range(self.num_steps if num_steps is None else num_steps):
                at = states[-1]
                gradient = self.gradient(at, context)
                move = {
                    name: -self.step_sizes(name, step) * (gradient[name] + self.strength * (at[name] - anchor[name]))
                    for name in at
                }
                states.append(self._moved(at, move))
        if not torch.is_grad_enabled() or len(states) == 1:
            return [state, *states[1:]]
        return [state, *states[1:-1], self._implicit(state, states[-1], context)]

    def _moved(self, at: Params, move: Params) -> Params:
        """The parameters after one step, whose norm is at most `max_move` per task."""
        if self.max_move is None:
            return {name: at[name] + move[name] for name in at}
        length = torch.stack([part.flatten(1).square().sum(1) for part in move.values()]).sum(0).sqrt()  # [N]
        share = self.max_move / length.clamp(min=self.max_move)
        return {name: at[name] + share.view(-1, *(1,) * (move[name].ndim - 1)) * move[name] for name in at}

    def _implicit(self, start: Params, reached: Params, context: Any) -> Params:
        """The value of `reached`, with the gradient of the optimum as a function of `start`."""

        def solve(*gradients: Tensor) -> tuple[Tensor, ...]:
            right = dict(zip(reached, gradients, strict=True))
            solution = conjugate_gradient(lambda v: self._system(reached, context, v), right, self.num_cg_steps)
            return tuple(solution.values())

        values = _Implicit.apply(solve, len(reached), *reached.values(), *start.values())
        return dict(zip(reached, values, strict=True))

    def _system(self, state: Params, context: Any, vector: Params) -> Params:
        """(1 + damping) v + H v / (strength + strength_damping), per task."""
        curvature = self._curvature(state, context, vector)
        over = self.strength + self.strength_damping
        return {name: (1 + self.damping) * v + curvature[name] / over for name, v in vector.items()}

    def _curvature(self, state: Params, context: Any, vector: Params) -> Params:
        """H v per task: the gradient of the directional derivative along v."""
        if self.batching == "batched":
            with torch.enable_grad():
                own = {name: value.detach().requires_grad_() for name, value in state.items()}
                slopes = torch.autograd.grad(self.losses(own, context).sum(), list(own.values()), create_graph=True)
                along = sum((slope * vector[name]).sum() for name, slope in zip(own, slopes, strict=True))
                assert isinstance(along, Tensor)
                return dict(zip(own, torch.autograd.grad(along, list(own.values())), strict=True))

        def product(params: Params, data: Any, vector: Params) -> Params:
            def slope(params: Params) -> Tensor:
                gradient = grad(self.loss)(params, data)
                return sum((gradient[name] * vector[name]).sum() for name in vector)  # type: ignore[return-value]

            return grad(slope)(params)

        return self._over_tasks(product)(state, context, vector)


class _Implicit(torch.autograd.Function):
    """The identity on an optimum's values, whose backward pass solves the linear system."""

    @staticmethod
    def forward(ctx: Any, solve: Callable[..., Any], size: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.solve, ctx.size = solve, size
        return tuple(tensor.clone() for tensor in tensors[:size])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (None, None, *(None,) * ctx.size, *ctx.solve(*gradients))


@dataclass(frozen=True)
class IMAMLConfig(MetaGradientConfig, InnerStepsConfig):
    """iMAML: adaptation regularised towards the initialisation, with an implicit meta-gradient."""

    num_inner_steps: int = 16  # number of gradient steps per task in meta-training
    strength: float = 2.0  # strength lambda of the regulariser towards the initialisation
    num_cg_steps: int = 5  # number of conjugate-gradient steps per meta-gradient
    cg_damping: float = 1.0  # damping of the linear system, as in the published code; 0: the paper's equation
    strength_damping: float = 10.0  # addition to the strength in the linear system; 0: the paper's equation
    max_move: float | None = None  # largest norm of an inner step, over all parameters; None: unlimited

    def __post_init__(self) -> None:
        MetaGradientConfig.__post_init__(self)
        InnerStepsConfig.__post_init__(self)
        positive(self, "strength", "max_move")
        not_negative(self, "cg_damping", "strength_damping")
        rounds(self, "num_cg_steps")

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> GradientLearner:
        net = self.make_net(problem, generator)
        return GradientLearner(self, self.make_adaptation(net, problem), problem, num_iterations)

    def make_adaptation(self, net: nn.Module, problem: Problem) -> ImplicitAdaptation:
        return ImplicitAdaptation(
            net,
            supervised_loss(net, problem.losses),
            FixedStepSizes(self.inner_lr),
            num_steps=self.num_inner_steps,
            strength=self.strength,
            num_cg_steps=self.num_cg_steps,
            damping=self.cg_damping,
            strength_damping=self.strength_damping,
            max_move=self.max_move,
            batching=self.batching,
            chunk_size=self.chunk_size,
        )
