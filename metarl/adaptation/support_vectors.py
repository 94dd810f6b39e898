"""The dual of the multi-class support vector machine, for many tasks at once, and its derivatives.

Crammer, Singer. On the algorithmic implementation of multiclass kernel-based vector machines (2001).
Beck, Teboulle. A fast iterative shrinkage-thresholding algorithm for linear inverse problems (2009), with Nesterov's
momentum (2004) for a curvature that is bounded from below.
Amos, Kolter. OptNet: differentiable optimization as a layer in neural networks (2017), for the derivatives.

Minimise  1/2 sum_w a_w' G a_w - sum_i a_{i, y_i}  over a [K, W] with  sum_w a_iw = 0  and  a_iw <= C [w = y_i].

With b = C [w = y] - a, each example's b lies in a simplex of size C; steps along the gradient, each followed by the
nearest point of the simplices, find the optimum. There, the entries of b that are zero stay so for small changes of G,
and the others solve linear equations, whose derivatives are those of the optimum.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ACTIVE = 1e-6  # share of a simplex below which an entry is held to be zero


def dual_variables(gram: Tensor, member: Tensor, cost: float, num_steps: int, *, least: float) -> Tensor:
    """The optimum a [N, K, W], differentiable in `gram`.

    gram [N, K, K]: symmetric, with no eigenvalue below `least` > 0. member [N, K, W] bool: one class for each example,
    none for padding, whose variables are zero; classes without an example do not compete. The steps need only find
    which variables are free, which takes more of them the larger gram is beside `least`.
    """
    target = member.to(gram.dtype)
    with torch.no_grad():
        inside = _simplices(gram, target, cost, num_steps, least)  # b
    return _on_free(gram, target, cost, inside > _ACTIVE * cost)


def _simplices(gram: Tensor, target: Tensor, cost: float, num_steps: int, least: float) -> Tensor:
    """b [N, K, W] after so many accelerated projected steps."""
    competing = target.amax(1, keepdim=True) * target.amax(2, keepdim=True) > 0  # [N, K, W]
    most = gram.abs().sum(-1).amax(-1)[:, None, None]  # no eigenvalue is above the largest sum of a row
    root = (least / most).sqrt()
    momentum = (1 - root) / (1 + root)
    point = ahead = cost * target
    for _ in range(num_steps):
        downhill = gram @ (cost * target - ahead) - target
        before, point = point, nearest_in_simplex(ahead + downhill / most, competing, cost)
        ahead = point + momentum * (point - before)
    return point


def nearest_in_simplex(values: Tensor, competing: Tensor, size: float) -> Tensor:
    """The nearest point whose competing entries [..., W] are not negative and sum to `size`; other entries are zero.

    Where nothing competes, zero.
    """
    low = values.amin(-1, keepdim=True) - 2 * size  # too low to be anything but zero
    ordered = torch.where(competing, values, low).sort(-1, descending=True).values
    surplus = ordered.cumsum(-1) - size
    places = torch.arange(1, values.shape[-1] + 1, dtype=values.dtype, device=values.device)
    count = (ordered * places > surplus).sum(-1, keepdim=True)
    shift = surplus.gather(-1, count - 1) / count
    return (values - shift).clamp(min=0) * competing


def _on_free(gram: Tensor, target: Tensor, cost: float, free: Tensor) -> Tensor:
    """a [N, K, W], where only `free` entries may differ from C [w = y]: the solution of linear equations.

    Unknown are a, and a price [N, K] of each example's sum. Given the prices, each class's variables are solved for by
    themselves; that all sums are zero then gives the prices.
    """
    fixed = (cost * target * ~free).mT  # [N, W, K]
    mask = free.mT.to(gram.dtype)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    curvature = mask.unsqueeze(-1) * gram.unsqueeze(1) * mask.unsqueeze(-2) + torch.diag_embed(1 - mask)  # [N, W, K, K]
    inverse = torch.linalg.solve(curvature, eye.expand(curvature.shape))
    inverse = inverse * mask.unsqueeze(-1) * mask.unsqueeze(-2)
    unpriced = fixed + (inverse @ (target.mT - fixed @ gram).unsqueeze(-1)).squeeze(-1)
    no_sum = torch.diag_embed((~free.any(-1)).to(gram.dtype))  # of padding, the price is zero
    price = torch.linalg.solve(inverse.sum(1) + no_sum, unpriced.sum(1))
    return (unpriced - (inverse @ price[:, None, :, None]).squeeze(-1)).mT
