"""Optimisation: the gradient step shared by all learners, conjugate gradient, and a trust-region step.

Schulman et al. Trust region policy optimization (2015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Params = dict[str, Tensor]


def gradient_step(
    optimizer: torch.optim.Optimizer,
    loss: Tensor | Iterable[Tensor],
    *,
    max_norm: float | None = None,
    learning_rate: float | None = None,
) -> Tensor:
    """One optimiser step, which computes gradients for the optimiser's own parameters only.

    loss: one tensor, or the terms of a sum; terms from a generator are computed and freed one by one. max_norm: the
    norm to which the gradient is clipped, possibly infinite; None: the norm is not computed. learning_rate: the rate
    for this step, for a schedule; None: the optimiser's current one.

    The gradient comes from `backward`, whose memory layout matches the parameter's: torch.autograd.grad returns
    transposed gradients for layers, which Adam's fused implementation silently reads in the wrong order.

    Returns the gradient norm [] before clipping; NaN if it was not computed.
    """
    if learning_rate is not None:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
    params = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    leaves = [parameter for parameter in params if parameter.requires_grad]
    optimizer.zero_grad()
    for part in (loss,) if isinstance(loss, Tensor) else loss:
        part.backward(inputs=leaves)
    norm = torch.tensor(torch.nan) if max_norm is None else nn.utils.clip_grad_norm_(params, max_norm)
    optimizer.step()
    return norm


def check_finite(module: nn.Module, when: str) -> None:
    """Check that parameters are finite, before a checkpoint with good ones is overwritten.

    Raises:
        FloatingPointError: names the first parameter that is not, and when.
    """
    bad = [name for name, value in module.named_parameters() if not bool(value.isfinite().all())]
    if bad:
        raise FloatingPointError(f"parameter {bad[0]} is not finite after {when}")


def conjugate_gradient(product: Callable[[Params], Params], right: Params, num_steps: int) -> Params:
    """Solve product(x) = right for a symmetric positive definite product, per task [N, ...]; starts at zero.

    Tasks whose residual is zero are not changed.
    """
    solution = {name: torch.zeros_like(value) for name, value in right.items()}
    residual, direction = dict(right), dict(right)
    size = _dot(residual, residual)  # [N]
    for _ in range(num_steps):
        image = product(direction)
        step = _ratio(size, _dot(direction, image))
        solution = _add(solution, direction, step)
        residual = _add(residual, image, -step)
        new_size = _dot(residual, residual)
        direction = _add(residual, direction, _ratio(new_size, size))
        size = new_size
    return solution


@dataclass(frozen=True)
class TrustRegionStep:
    """The outcome of a trust-region step."""

    accepted: bool  # if false, the parameters are unchanged, bit for bit
    num_backtracks: int
    loss_before: float
    loss: float  # loss at the last parameters tried
    kl: float  # KL divergence at the last parameters tried


def trust_region_step(
    parameters: Sequence[Tensor],
    gradient: Tensor,
    curvature: Callable[[Tensor], Tensor],
    evaluate: Callable[[], tuple[float, float]],
    *,
    max_kl: float,
    num_cg_steps: int,
    damping: float,
    max_backtracks: int,
    backtrack_ratio: float,
) -> TrustRegionStep:
    """Move parameters in place along the natural gradient, within the trust region and only if the loss falls.

    gradient [P]: the flattened gradient of the loss. curvature: the product of the KL divergence's Hessian with a
    vector [P]. evaluate: returns the loss, and the KL from the start of the step, at the current parameters. max_kl:
    the radius.

    A step that does not lower the loss within the radius is scaled by `backtrack_ratio` and tried again, up to
    `max_backtracks` times; then the parameters stay unchanged.

    Raises:
        FloatingPointError: when the gradient is not finite.
    """
    if not bool(gradient.isfinite().all()):
        raise FloatingPointError("the gradient of the meta-loss is not finite")
    with torch.no_grad():
        start = torch.cat([parameter.flatten() for parameter in parameters])
        loss_before, _ = evaluate()

    def product(vector: Params) -> Params:
        (v,) = vector["flat"]
        return {"flat": (curvature(v) + damping * v).unsqueeze(0)}

    direction = conjugate_gradient(product, {"flat": gradient.unsqueeze(0)}, num_cg_steps)["flat"][0]
    quadratic = float(direction @ curvature(direction))
    if not quadratic > 0:  # also true for NaN
        return TrustRegionStep(False, 0, loss_before, loss_before, 0.0)
    full_step = direction * (2 * max_kl / quadratic) ** 0.5
    loss, kl = loss_before, 0.0
    with torch.no_grad():
        for backtracks in range(max_backtracks + 1):
            _assign(parameters, start - backtrack_ratio**backtracks * full_step)
            loss, kl = evaluate()
            if loss < loss_before and kl <= max_kl:
                return TrustRegionStep(True, backtracks, loss_before, loss, kl)
        _assign(parameters, start)
    return TrustRegionStep(False, max_backtracks, loss_before, loss, kl)


def _assign(parameters: Sequence[Tensor], flat: Tensor) -> None:
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, values in zip(parameters, flat.split(sizes), strict=True):
        parameter.copy_(values.view_as(parameter))


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below > 0, above / torch.where(below > 0, below, 1.0), 0.0)


def _dot(left: Params, right: Params) -> Tensor:
    return sum((left[name] * right[name]).flatten(1).sum(1) for name in left)  # type: ignore[return-value]


def _add(left: Params, right: Params, factor: Tensor) -> Params:
    """left + factor * right, with one factor per task [N]."""
    return {name: v + factor.view(-1, *(1,) * (v.ndim - 1)) * right[name] for name, v in left.items()}
