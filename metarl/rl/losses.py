"""Returns, advantages and losses as pure functions of small tensors.

Schulman et al. High-dimensional continuous control using generalized advantage estimation (2016).
Schulman et al. Proximal policy optimization algorithms (2017).
"""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.parallel import total


def discounted_sum(reward: Tensor, start: Tensor, gamma: float) -> Tensor:
    """The discounted sum of past rewards: [T, B].

    reward [T, B]; start [T, B] bool, true where the sum restarts. Its standard deviation estimates the scale of the
    returns before the episode ends (the reward normalisation of Engstrom et al. 2020, "Implementation matters").
    """
    sums = []
    running = torch.zeros_like(reward[0])
    for t in range(len(reward)):
        running = reward[t] + gamma * torch.where(start[t], 0.0, running)
        sums.append(running)
    return torch.stack(sums)


def generalized_advantage(
    reward: Tensor, value: Tensor, next_value: Tensor, carry: Tensor, *, gamma: float, lam: float
) -> Tensor:
    """Generalized advantage estimates [T, B].

    reward, value, next_value [T, B]: `next_value` is the value to bootstrap with after step t, zero at a true end.
    carry [T, B] bool: whether the advantage of step t + 1 is credited to step t. With these two, an agent chooses
    whether credit stays within an episode or, as in RL2, flows back into earlier episodes of the same trial.
    """
    delta = reward + gamma * next_value - value
    decay = gamma * lam * carry.to(delta.dtype)
    advantage = torch.zeros_like(delta)
    running = torch.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        running = torch.addcmul(delta[t], decay[t], running)
        advantage[t] = running
    return advantage


def clipped_surrogate(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """PPO's pessimistic policy loss per sample, to be minimised; all arguments have the same shape."""
    ratio = (log_prob - old_log_prob).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def clipped_value_loss(value: Tensor, old_value: Tensor, target: Tensor, clip: float | None) -> Tensor:
    """Half the squared error per sample; the change from the old value is limited to `clip` (None: no limit)."""
    error = (value - target).square()
    if clip is not None:
        limited = old_value + (value - old_value).clamp(-clip, clip)
        error = torch.maximum(error, (limited - target).square())
    return 0.5 * error


def approximate_kl(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """KL(old || new) per sample: the non-negative, low-variance estimator (ratio - 1) - log ratio."""
    log_ratio = log_prob - old_log_prob
    return log_ratio.expm1() - log_ratio


def mean_where(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of the valid entries; zero where there are none."""
    weight = valid.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=1)


def standardise_where(values: Tensor, valid: Tensor) -> Tensor:
    """Shift and scale to mean zero and standard deviation one over the valid entries; zero elsewhere.

    Entries of all processes count, where these share the tasks.
    """
    weight = valid.to(values.dtype)
    count = total(weight.sum()).clamp(min=1)
    mean = total((values * weight).sum()) / count
    std = (total(((values - mean).square() * weight).sum()) / count).sqrt()
    return torch.where(valid, (values - mean) / (std + 1e-8), 0.0)


def mean_over_examples(values: Tensor, valid: Tensor | None) -> Tensor:
    """The mean over a task's examples, [..., K] -> [...], where `valid` (bool) is true; None: over all."""
    if valid is None:
        return values.mean(-1)
    return torch.where(valid, values, 0.0).sum(-1) / valid.sum(-1).clamp(min=1)
