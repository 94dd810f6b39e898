"""Optimisation: the gradient step shared by all learners, conjugate gradient, and a trust-region step.

Schulman et al. Trust region policy optimization (2015).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metarl.parallel import sum_gradients

Params = dict[str, Tensor]
_IMPLEMENTATIONS = ("foreach", "fused")  # settings of Adam that choose how its steps are computed, not which
_ADAM_SHAPES = {"step": False, "exp_avg": True, "exp_avg_sq": True}  # whether an entry has its parameter's shape


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
    for this step, for a schedule; None: the optimiser's current one. Where several processes share the tasks, the loss
    is this one's term of a sum over them, and all take the same step on the sum's gradient.

    The gradient comes from `backward`, whose memory layout matches the parameter's: torch.autograd.grad returns
    transposed gradients for layers, which Adam's fused implementation silently reads in the wrong order.

    Returns the gradient norm [] before clipping; NaN if it was not computed.

    Raises:
        FloatingPointError: when a parameter is no longer finite.
    """
    if learning_rate is not None:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
    params = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    leaves = [parameter for parameter in params if parameter.requires_grad]
    optimizer.zero_grad()
    for part in (loss,) if isinstance(loss, Tensor) else loss:
        part.backward(inputs=leaves)
    sum_gradients(leaves)
    norm = torch.tensor(torch.nan) if max_norm is None else nn.utils.clip_grad_norm_(params, max_norm)
    optimizer.step()
    if not _all_finite(params):
        rate = optimizer.param_groups[0]["lr"]
        raise FloatingPointError(f"a parameter is not finite after a gradient step at learning rate {rate:g}")
    return norm


def _all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether all numbers are finite; their sum tells it in one go unless it overflows."""
    sums = torch.stack([tensor.detach().sum() for tensor in tensors])
    return bool(sums.isfinite().all()) or all(bool(tensor.isfinite().all()) for tensor in tensors)


def check_finite(module: nn.Module, when: str) -> None:
    """Check that parameters are finite, before a checkpoint with good ones is overwritten.

    Raises:
        FloatingPointError: names the first parameter that is not, and when.
    """
    bad = [name for name, value in module.named_parameters() if not bool(value.isfinite().all())]
    if bad:
        raise FloatingPointError(f"parameter {bad[0]} is not finite after {when}")


def is_optimizer_state(value: Any) -> bool:
    """Whether a value is the state of one of torch's optimisers, by its keys."""
    return isinstance(value, Mapping) and value.keys() == {"state", "param_groups"}


def load_adam(optimizer: torch.optim.Adam, saved: Mapping[str, Any]) -> None:
    """Give an optimiser its saved moments, after checking that they fit its parameters.

    Its settings stay those that it was made with, the learning rate aside. torch itself takes moments of any shape and
    type, which then end a later step in an error or in a crash of the whole process.

    Raises:
        KeyError: for what the saved state lacks.
        ValueError: when a saved setting or moment does not fit; names it.
    """
    groups = optimizer.state_dict()["param_groups"]
    if not isinstance(saved["param_groups"], list) or len(saved["param_groups"]) != len(groups):
        raise ValueError(f"optimizer.param_groups must be a list of {len(groups)}")
    rates = [_checked_group(group, before) for group, before in zip(groups, saved["param_groups"], strict=True)]
    params = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not isinstance(saved["state"], Mapping):
        raise ValueError(f"optimizer.state is of type {type(saved['state']).__name__}; must be dict")
    strange = [index for index in saved["state"] if index not in range(len(params))]
    if strange:
        raise ValueError(f"optimizer.state has parameter {strange[0]!r}; there are {len(params)}")
    state = {index: _checked_moments(params[index], index, moments) for index, moments in saved["state"].items()}
    groups = [{**group, "lr": rate} for group, rate in zip(groups, rates, strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _checked_group(group: Mapping[str, Any], saved: Any) -> float:
    """The learning rate of a saved group, whose other settings must be those of the optimiser's own.

    Switches that an earlier torch did not have may be absent, and the implementation may be another.
    """
    if not isinstance(saved, Mapping):
        raise ValueError(f"optimizer.param_groups has a {type(saved).__name__}; must have a dict")
    for name, value in group.items():
        if name in _IMPLEMENTATIONS or (name not in saved and (value is None or isinstance(value, bool))):
            continue
        if name not in saved:
            raise KeyError(name)
        if name != "lr" and (type(saved[name]) is not type(value) or saved[name] != value):
            raise ValueError(f"optimizer.{name} is {saved[name]!r}; must be {value!r}")
    rate = saved["lr"]
    if type(rate) not in (int, float) or not 0 <= rate < math.inf:
        raise ValueError(f"optimizer.lr is {rate!r}; must be zero or positive, and finite")
    return float(rate)


def _checked_moments(parameter: Tensor, index: int, saved: Any) -> dict[str, Tensor]:
    """Adam's state of one parameter, laid out in memory as the parameter is."""
    where = f"optimizer.state[{index}]"
    if not isinstance(saved, Mapping) or set(saved) != set(_ADAM_SHAPES):
        raise ValueError(f"{where} must have {', '.join(_ADAM_SHAPES)} and no other entry")
    checked = {}
    for name, like_parameter in _ADAM_SHAPES.items():
        value, shape = saved[name], parameter.shape if like_parameter else torch.Size()
        dtype = parameter.dtype if like_parameter else torch.float32
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.dtype != dtype:
            raise ValueError(f"{where}.{name} must be a dense tensor of {dtype}")
        if value.shape != shape:
            raise ValueError(f"{where}.{name} has shape {list(value.shape)}; must be {list(shape)}")
        if is_expanded(value):
            raise ValueError(f"{where}.{name} is an expanded tensor; must have a number in memory for each entry")
        if not bool(value.isfinite().all()) or (name != "exp_avg" and bool((value < 0).any())):
            raise ValueError(f"{where}.{name} must be finite{'' if name == 'exp_avg' else ' and not negative'}")
        checked[name] = torch.empty_like(parameter).copy_(value) if like_parameter else value.clone()
    return checked


def is_expanded(value: Tensor) -> bool:
    """Whether several entries of a dense tensor share one place in memory."""
    return any(size > 1 and stride == 0 for size, stride in zip(value.shape, value.stride(), strict=True))


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


def flat_gradient(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The gradient of a loss as one vector [P]; zeros for parameters that it does not depend on."""
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    filled = (torch.zeros_like(p) if slope is None else slope for p, slope in zip(parameters, found, strict=True))
    return torch.cat([slope.flatten() for slope in filled])
