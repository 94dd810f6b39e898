"""PPO: epochs of a clipped surrogate on whole trials, for any agent whose net outputs a policy and a value.

Schulman et al. Proximal policy optimization algorithms (2017).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from metarl.checks import at_least, in_range, literals, not_negative, positive, rounds
from metarl.nets.moments import Moments
from metarl.optim import gradient_step, load_adam
from metarl.parallel import Share, current, is_shared, total
from metarl.records import ActorCriticDecision, Record, Trajectory
from metarl.rl.losses import (
    approximate_kl,
    clipped_surrogate,
    clipped_value_loss,
    discounted_sum,
    generalized_advantage,
    mean_where,
    standardise_where,
)

D = TypeVar("D", bound=ActorCriticDecision)


@dataclass(frozen=True)
class PPOConfig:
    """The common settings of agents trained by PPO."""

    gamma: float = 0.99  # discount factor
    lam: float = 0.95  # lambda of generalised advantage estimation
    credit_across_episodes: bool = True  # whether advantages cross the ends of episodes within a trial
    learning_rate: float = 1e-3  # initial learning rate of Adam
    final_learning_rate: float = 1e-4  # learning rate at the last iteration, reached linearly; at most `learning_rate`
    num_epochs: int = 5  # number of passes over each batch
    num_minibatches: int = 4  # number of minibatches of whole trials per epoch
    clip: float = 0.2  # distance from one at which the likelihood ratio is clipped
    value_clip: float | None = None  # largest change of a value, in normalised return; None: no limit
    value_coefficient: float = 0.5  # weight of the value loss
    entropy_coefficient: float = 0.01  # initial weight of the entropy bonus
    final_entropy_coefficient: float | None = None  # weight of the entropy bonus at the last iteration; None: constant
    max_grad_norm: float = 0.5  # largest norm of the gradient
    target_kl: float | None = 0.03  # KL divergence beyond 1.5 times which an update stops; None: no early stop

    def __post_init__(self) -> None:
        literals(self)
        rounds(self, "num_epochs")
        at_least(self, 1, "num_minibatches")
        in_range(self, 0, 1, "gamma", "lam")
        positive(self, "learning_rate", "clip", "value_clip", "max_grad_norm", "target_kl")
        not_negative(self, "final_learning_rate", "value_coefficient", "entropy_coefficient")
        not_negative(self, "final_entropy_coefficient")
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate is {self.final_learning_rate} and learning_rate {self.learning_rate}; "
                "the final one must not be larger"
            )


@dataclass(frozen=True)
class PPOBatch(Record):
    """The data of one update; every row is a whole trial."""

    decision: ActorCriticDecision  # [T, B, ...], as sampled
    advantage: Tensor  # [T, B], standardised
    target: Tensor  # [T, B], the critic's target, in units of normalised return
    valid: Tensor  # [T, B] bool

    def rows(self, index: Tensor) -> PPOBatch:
        return self.map(lambda value: value.index_select(1, index))


class Evaluated(NamedTuple):
    """The current policy's and critic's outputs for past decisions."""

    log_prob: Tensor  # [T, B]
    value: Tensor  # [T, B]
    entropy: Tensor  # [T, B]


class Losses(NamedTuple):
    """Means over valid steps, each []."""

    policy: Tensor
    value: Tensor
    entropy: Tensor
    kl: Tensor  # approximate KL divergence from the acting policy
    clipped: Tensor  # fraction of ratios beyond the clip


def batch_of(trajectory: Trajectory[D], config: PPOConfig, reward_scale: Tensor | float) -> PPOBatch:
    """Advantages and the critic's targets of whole trials, from rewards divided by `reward_scale`.

    The value after a trial is zero; without `credit_across_episodes`, so is the value after each episode.
    """
    valid, value = trajectory.valid, trajectory.decision.value
    reward = torch.where(valid, trajectory.reward, 0.0) / reward_scale
    goes_on = torch.zeros_like(valid)  # [T, B]: whether the next step's advantage is credited to this step
    goes_on[:-1] = valid[1:]
    if not config.credit_across_episodes:
        goes_on &= ~trajectory.episode_end
    next_value = torch.zeros_like(value)
    next_value[:-1] = value[1:]
    next_value = torch.where(goes_on, next_value, 0.0)
    advantage = generalized_advantage(reward, value, next_value, goes_on, gamma=config.gamma, lam=config.lam)
    return PPOBatch(trajectory.decision, standardise_where(advantage, valid), advantage + value, valid)


def past_returns(trajectory: Trajectory[D], gamma: float) -> Moments:
    """Moments [] of the discounted sums of past rewards in whole trials; their deviation scales critics' targets.

    Trials of all processes count, where these share the tasks.
    """
    reward = torch.where(trajectory.valid, trajectory.reward, 0.0)
    return Moments.of(discounted_sum(reward, trajectory.trial_start, gamma)[trajectory.valid]).of_all()


class PPO:
    """The optimiser of a net, and the number of updates so far."""

    def __init__(self, config: PPOConfig, net: nn.Module, num_iterations: int) -> None:
        self.config, self.net, self.num_iterations = config, net, num_iterations
        self.iteration = 0
        self.optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate, eps=1e-5, fused=True)

    def scheduled(self, start: float, end: float | None) -> float:
        """A setting in this iteration, which goes linearly from `start` to `end` in the last one; None: constant."""
        progress = min(self.iteration / max(self.num_iterations - 1, 1), 1.0)
        return start if end is None else start + (end - start) * progress

    def update(
        self, batch: PPOBatch, evaluate: Callable[[Tensor], Evaluated], generator: torch.Generator
    ) -> dict[str, float]:
        """Epochs on minibatches of the batch's rows; `evaluate` applies the current net to the rows of an index [R].

        Several processes together have the minibatches of one: each takes its own rows of a minibatch.

        Raises:
            FloatingPointError: when a parameter is no longer finite; the agent is unusable then.
        """
        config = self.config
        learning_rate = self.scheduled(config.learning_rate, config.final_learning_rate)
        sums = torch.zeros(6, device=batch.target.device)
        kls: list[Tensor] = []  # of all minibatches, including the one that stops the update
        num_steps = 0
        for rows, weight in minibatches(batch.valid, config.num_epochs, config.num_minibatches, generator):
            losses = _losses(config, batch, rows, weight, evaluate)
            kls.append(losses.kl if config.target_kl is None else total(losses.kl))
            if config.target_kl is not None and kls[-1].item() > 1.5 * config.target_kl and num_steps > 0:
                break
            loss = self._total(losses)
            norm = gradient_step(self.optimizer, loss, max_norm=config.max_grad_norm, learning_rate=learning_rate)
            num_steps += 1
            sums += torch.stack([*losses, norm]).detach()
        if is_shared():
            sums[:-1] = total(sums[:-1])  # the norm is that of the sum already
        self.iteration += 1
        names = ("policy_gradient_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "grad_norm")
        metrics: dict[str, float] = dict(zip(names, (sums / num_steps).tolist(), strict=True))
        mean_kl = torch.stack(kls).mean()
        metrics["approx_kl"] = float(total(mean_kl) if config.target_kl is None else mean_kl)
        metrics["learning_rate"] = learning_rate
        metrics["num_gradient_steps"] = float(num_steps)
        metrics["explained_variance"] = _explained_variance(batch)
        return metrics

    def loss(self, batch: PPOBatch, now: Evaluated) -> Tensor:
        """The loss of this iteration's settings on a batch, a scalar."""
        return self._total(losses_of(self.config, batch, now))

    def _total(self, losses: Losses) -> Tensor:
        config = self.config
        entropy_coefficient = self.scheduled(config.entropy_coefficient, config.final_entropy_coefficient)
        return losses.policy + config.value_coefficient * losses.value - entropy_coefficient * losses.entropy

    def state_dict(self) -> dict[str, Any]:
        return {"iteration": self.iteration, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.iteration = state["iteration"]
        load_adam(self.optimizer, state["optimizer"])


def minibatches(
    valid: Tensor, num_epochs: int, num_minibatches: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The rows [R] of each minibatch of trials with valid [T, B], each epoch in another order.

    Of several processes, these are this one's rows, with its fraction [] of the minibatch's valid steps; None: all.
    """
    share = current() or Share(valid.shape[1])
    num_steps = share.gathered(valid.sum(0))  # [B], of all processes' rows
    num_rows = len(num_steps)
    for _ in range(num_epochs):
        order = torch.randperm(num_rows, generator=generator, device=generator.device)
        for rows in order.tensor_split(min(num_minibatches, num_rows)):
            own = share.own_rows(rows, num_rows)
            yield own, valid[:, own].sum() / num_steps[rows].sum() if share.count > 1 else None


def _losses(
    config: PPOConfig, batch: PPOBatch, rows: Tensor, weight: Tensor | None, evaluate: Callable[[Tensor], Evaluated]
) -> Losses:
    """The losses on the rows of an index [R], times a weight; None: one."""
    if weight is None:
        return losses_of(config, batch.rows(rows), evaluate(rows))
    if not len(rows):  # all rows of the minibatch are other processes'
        return Losses(*batch.target.new_zeros(5).requires_grad_())
    losses = losses_of(config, batch.rows(rows), evaluate(rows))
    return Losses(*(weight * loss for loss in losses))


def losses_of(config: PPOConfig, batch: PPOBatch, now: Evaluated) -> Losses:
    """PPO's losses on a batch, and the policy's KL divergence from the acting policy."""
    old = batch.decision
    policy_loss = clipped_surrogate(now.log_prob, old.log_prob, batch.advantage, config.clip)
    value_loss = clipped_value_loss(now.value, old.value, batch.target, config.value_clip)
    with torch.no_grad():
        kl = approximate_kl(now.log_prob, old.log_prob)
        clipped = ((now.log_prob - old.log_prob).exp() - 1).abs() > config.clip
    terms = (policy_loss, value_loss, now.entropy, kl, clipped.float())
    return Losses(*(mean_where(term, batch.valid) for term in terms))


def _explained_variance(batch: PPOBatch) -> float:
    """The fraction of the targets' variance explained by the critic's values at collection."""
    target = batch.target[batch.valid]
    residual = target - batch.decision.value[batch.valid]
    if is_shared():
        of_residual, of_target = Moments.of(residual).of_all(), Moments.of(target).of_all()
        return float(1 - of_residual.deviation / of_target.deviation.clamp(min=1e-12))
    return float(1 - residual.var() / target.var().clamp(min=1e-12))
