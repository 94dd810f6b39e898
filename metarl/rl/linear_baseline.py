"""The linear-feature baseline: a regression of returns on simple features of time and observation, per task.

Duan et al. Benchmarking deep reinforcement learning for continuous control (2016). MAML, ProMP and their successors
refit it to every batch of a task and evaluate it on the same batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.records import by_task

OBS_LIMIT = 10.0  # bound to which observations are clipped
TIME_SCALE = 100.0  # steps
_TRIES = 6  # attempts, each with ten times the ridge, for a task whose features are nearly collinear


def fitted_returns(
    obs: Tensor, time: Tensor, returns: Tensor, valid: Tensor, num_tasks: int, *, ridge: float = 1e-5
) -> Tensor:
    """The predictions of each task's baseline on its own batch: [T, B].

    obs [T, B, O]; time [T, B], steps since the episode began; returns [T, B], the targets; valid [T, B] bool, the steps
    that count. The rows of a task are contiguous. All tasks are solved at once, in float64.

    Raises:
        FloatingPointError: when a task's regression cannot be solved because a value is not finite.
    """
    steps, rows = returns.shape
    features = by_task(_features(obs, time), num_tasks)  # [N, K, D]
    counted = features * by_task(valid, num_tasks).unsqueeze(-1)
    gram = counted.mT @ features  # [N, D, D]
    moment = counted.mT @ by_task(returns, num_tasks).double().unsqueeze(-1)  # [N, D, 1]
    weights = torch.cholesky_solve(moment, _cholesky(gram, ridge))
    fitted = (features @ weights).squeeze(-1)  # [N, K]
    return fitted.view(rows, steps).T.to(returns.dtype)


def _features(obs: Tensor, time: Tensor) -> Tensor:
    """The observation and its square, three powers of time and a constant: [T, B, 2 O + 4] float64."""
    obs = obs.double().clamp(-OBS_LIMIT, OBS_LIMIT)
    time = (time.double() / TIME_SCALE).unsqueeze(-1)
    return torch.cat([obs, obs.square(), time, time.square(), time**3, torch.ones_like(time)], -1)


def _cholesky(gram: Tensor, ridge: float) -> Tensor:
    """Cholesky factors of gram + ridge [N, D, D]; the ridge grows for tasks where this is not positive definite."""
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    ridges = gram.new_full((len(gram), 1, 1), ridge)
    for _ in range(_TRIES):
        factors, failed = torch.linalg.cholesky_ex(gram + ridges * eye)
        bad = failed.bool()
        if not bool(bad.any()):
            return factors
        ridges = torch.where(bad[:, None, None], 10 * ridges, ridges)
    raise FloatingPointError("the linear baseline has no solution; its observations or returns are not finite")
