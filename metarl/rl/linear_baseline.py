"""The linear-feature baseline: a regression of returns on simple features of time and observation, for each task.

Duan et al. Benchmarking deep reinforcement learning for continuous control (2016). MAML, ProMP and their successors
fit it anew to every batch of a task and read it off on the same batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.records import by_task

OBS_LIMIT = 10.0  # beyond which observations are clipped
TIME_SCALE = 100.0  # steps
_TRIES = 6  # with ten times the ridge each, where a task's features are too alike


def fitted_returns(
    obs: Tensor, time: Tensor, returns: Tensor, valid: Tensor, num_tasks: int, *, ridge: float = 1e-5
) -> Tensor:
    """What the baseline of each task says of its own batch: [T, B].

    obs [T, B, O]; time [T, B], steps since the episode began; returns [T, B], to be regressed; valid [T, B] bool, what
    counts. The rows of a task are contiguous. All tasks are solved at once, in float64.

    Raises:
        FloatingPointError: when a task's regression cannot be solved, as something in it is not finite.
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
    """Factors of gram + ridge [N, D, D]; of a task where that is not positive definite, with a larger ridge."""
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    ridges = gram.new_full((len(gram), 1, 1), ridge)
    for _ in range(_TRIES):
        factors, failed = torch.linalg.cholesky_ex(gram + ridges * eye)
        bad = failed.bool()
        if not bool(bad.any()):
            return factors
        ridges = torch.where(bad[:, None, None], 10 * ridges, ridges)
    raise FloatingPointError("the linear baseline has no solution; its observations or returns are not finite")
