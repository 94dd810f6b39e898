"""The objective of gradient-based meta-RL: the return after inner policy-gradient steps from an initialisation.

Finn, Abbeel, Levine. Model-agnostic meta-learning for fast adaptation of deep networks (2017).
Stadie et al. Some considerations on learning to explore via meta-reinforcement learning (2018): exploration credit.
Rothfuss et al. ProMP: proximal meta-policy search (2019): the likelihood-ratio form of the inner objective.

A trial's blocks are numbered from zero: block 0 was sampled by the meta-learned policy, block k by the policy after k
inner steps; the outer loop evaluates the last one.

Deviations: 1. the exploration credit of a task is its mean return after adaptation, standardised over the meta-batch,
the paper does not standardise it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import functional_call

from metarl.adaptation.gradient import GradientAdaptation, Params, TaskLoss
from metarl.nets.mlp import PolicyHead
from metarl.parallel import Share, current, fraction
from metarl.records import Record, SampledDecision, Trajectory, by_task
from metarl.rl.linear_baseline import fitted_returns
from metarl.rl.losses import clipped_surrogate, generalized_advantage

STEPS_AT_ONCE = 4000  # steps per part of the objective; measured: more exceeds the cache, fewer waits for Python
InnerObjective = Literal["log_likelihood", "likelihood_ratio"]


@dataclass(frozen=True)
class Samples(Record):
    """The steps of one block, by task."""

    obs: Tensor  # [N, K, O]
    action: Tensor  # [N, K] or [N, K, A], in policy units
    log_prob: Tensor  # [N, K], at sampling
    weight: Tensor  # [N, K], sums to one per task, zero for invalid steps
    advantage: Tensor  # [N, K], scaled to standard deviation one per task, times the step's weight
    mean_return: Tensor  # [N], mean undiscounted return of the block's episodes

    def thinned(self, stride: int) -> Samples:
        """Every `stride`-th step."""
        if stride == 1:
            return self
        left = self.weight[:, ::stride].sum(1, keepdim=True)
        return Samples(
            self.obs[:, ::stride],
            self.action[:, ::stride],
            self.log_prob[:, ::stride],
            self.weight[:, ::stride] / left,
            self.advantage[:, ::stride] / left,
            self.mean_return,
        )


def samples_of(
    trajectory: Trajectory[SampledDecision], policy: PolicyHead, num_tasks: int, *, gamma: float, lam: float
) -> Samples:
    """One block as samples: GAE with a linear baseline per task, without bootstrapping at an episode's end.

    As in the papers' code, an episode truncated by the time limit counts as terminated; the baseline, which depends on
    time, compensates for this.
    """
    valid = trajectory.valid
    time = _steps_since(trajectory.episode_start)
    reward = torch.where(valid, trajectory.reward, 0.0)
    goes_on = torch.zeros_like(valid)  # [T, B]: whether the next step belongs to the same episode
    goes_on[:-1] = valid[1:]
    goes_on &= ~trajectory.episode_end
    zero = torch.zeros_like(reward)
    returns = generalized_advantage(reward, zero, zero, goes_on, gamma=gamma, lam=1.0)
    value = fitted_returns(trajectory.obs, time, returns, valid, num_tasks)
    next_value = torch.zeros_like(value)
    next_value[:-1] = value[1:]
    next_value = torch.where(goes_on, next_value, 0.0)
    advantage = generalized_advantage(reward, value, next_value, goes_on, gamma=gamma, lam=lam)
    weight = by_task(valid.to(reward.dtype), num_tasks)
    weight = weight / weight.sum(1, keepdim=True)
    num_episodes = (trajectory.episode_start & valid).sum(0).view(num_tasks, -1).sum(1)
    return Samples(
        obs=by_task(trajectory.obs, num_tasks),
        action=by_task(policy.from_env(trajectory.decision.action), num_tasks),
        log_prob=by_task(trajectory.decision.log_prob, num_tasks),
        weight=weight,
        advantage=_standardised(by_task(advantage, num_tasks), weight) * weight,
        mean_return=reward.sum(0).view(num_tasks, -1).sum(1) / num_episodes,
    )


def inner_loss(policy: PolicyHead, objective: InnerObjective) -> TaskLoss:
    """The loss [N]: minus the expected advantage, whose gradient at the sampling policy is the policy gradient.

    Both objectives have that gradient; the second derivatives of the likelihood ratio are low-variance estimates of the
    return's, while those of the log-likelihood lack a term.
    """

    def loss(params: Params, samples: Samples) -> Tensor:
        log_prob = _distribution(policy, params, samples).log_prob(samples.action)
        score = log_prob if objective == "log_likelihood" else (log_prob - samples.log_prob).exp()
        return -(score * samples.advantage).sum(-1)

    return loss


class MetaObjective:
    """The outer loss and the KL divergences of one batch of trials, as functions of the meta-parameters.

    Of all tasks, those of this process, and means over these: `share` is the fraction that they are.

    exploration_credit: weight of the return after adaptation in the credit of the steps before it; zero for none.
    """

    def __init__(
        self, adaptation: GradientAdaptation, policy: PolicyHead, trial: Sequence[Samples], exploration_credit: float
    ) -> None:
        self.adaptation, self.policy, self.trial = adaptation, policy, trial
        self.credit = None  # [N]
        if exploration_credit:
            share = current() or Share(len(trial[-1].mean_return))
            reached = share.gathered(trial[-1].mean_return)
            standardised = (reached - reached.mean()) / (reached.std(correction=0) + 1e-8)
            self.credit = share.own(exploration_credit * standardised)
        self.share = fraction()  # fraction of all tasks
        with torch.no_grad():
            self._sampled_by = [self._distribution(k, state) for k, state in enumerate(self.states())]

    def parts(self) -> list[MetaObjective]:
        """The objective split into parts of a few tasks: a mean over tasks is the sum of the parts', by `share`.

        The computations for one part then fit the CPU's cache.
        """
        num_tasks, num_steps = self.trial[0].advantage.shape
        at_once = max(1, STEPS_AT_ONCE // num_steps)
        return [self._part(slice(start, start + at_once)) for start in range(0, num_tasks, at_once)]

    def by_task(self) -> list[MetaObjective]:
        """The objective of each task alone."""
        return [self._part(slice(task, task + 1)) for task in range(len(self.trial[0]))]

    def _part(self, tasks: slice) -> MetaObjective:
        part = copy.copy(self)
        part.trial = [samples[tasks] for samples in self.trial]
        part.credit = None if self.credit is None else self.credit[tasks]
        part.share = self.share * len(part.trial[0]) / len(self.trial[0])
        part._sampled_by = [_of_tasks(distribution, tasks, len(self.trial[0])) for distribution in self._sampled_by]
        return part

    def states(self) -> list[Params]:
        """The policies of the blocks, after 0, 1, ... inner steps. Gradients flow through the steps."""
        states = [self.adaptation.prior(len(self.trial[0]))]
        for k, samples in enumerate(self.trial[:-1]):
            states.append(self.adaptation.step(states[-1], samples, k))
        return states

    def loss(self, states: Sequence[Params], clip: float | None = None) -> Tensor:
        """Minus the surrogate of the return after adaptation, a mean over tasks; clip: as in PPO; None: no clipping."""
        last, samples = len(self.trial) - 1, self.trial[-1]
        log_prob = self._distribution(last, states[-1]).log_prob(samples.action)
        if clip is None:
            per_step = -(log_prob - samples.log_prob).exp() * samples.advantage
        else:
            per_step = clipped_surrogate(log_prob, samples.log_prob, samples.advantage, clip)
        loss = per_step.sum(1).mean()
        return loss if self.credit is None else loss - (self.credit * self._explored(states[:-1])).mean()

    def _explored(self, states: Sequence[Params]) -> Tensor:
        """The change in log-likelihood of the steps before adaptation, summed over blocks: [N]."""
        total = torch.zeros_like(self.trial[0].mean_return)
        for k, state in enumerate(states):
            samples = self.trial[k]
            ratio = (self._distribution(k, state).log_prob(samples.action) - samples.log_prob).exp()
            total = total + (ratio * samples.weight).sum(1)
        return total

    def divergence(self, states: Sequence[Params], block: int) -> Tensor:
        """KL from the policy that sampled a block to its current policy, a mean over tasks and steps."""
        old, new = self._sampled_by[block], self._distribution(block, states[block])
        return (old.kl(new) * self.trial[block].weight).sum(1).mean()

    def thinned(self, stride: int) -> MetaObjective:
        """The objective on every `stride`-th step of the data, also in the inner steps."""
        if stride == 1:
            return self
        thin = copy.copy(self)
        thin.trial = [samples.thinned(stride) for samples in self.trial]
        with torch.no_grad():
            thin._sampled_by = [thin._distribution(k, state) for k, state in enumerate(thin.states())]
        return thin

    def _distribution(self, block: int, state: Params) -> Any:
        return _distribution(self.policy, state, self.trial[block])


def _of_tasks(distribution: Any, tasks: slice, num_tasks: int) -> Any:
    """The distribution restricted to some of its N tasks; parameters shared by all tasks are kept."""
    return distribution.map(lambda value: value[tasks] if len(value) == num_tasks else value)


def _distribution(policy: PolicyHead, params: Params, samples: Samples) -> Any:
    return functional_call(policy, params, (samples.obs,))


def _steps_since(start: Tensor) -> Tensor:
    """Steps since the last start [T, B]; zero at a start."""
    index = torch.arange(len(start), device=start.device).unsqueeze(1)
    return index - torch.where(start, index, 0).cummax(0).values


def _standardised(values: Tensor, weight: Tensor) -> Tensor:
    """Values [N, K] standardised per task, with weights that sum to one."""
    mean = (values * weight).sum(1, keepdim=True)
    std = ((values - mean).square() * weight).sum(1, keepdim=True).sqrt()
    return (values - mean) / (std + 1e-8)
