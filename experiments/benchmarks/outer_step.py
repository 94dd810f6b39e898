"""The outer step of ProMP and MAML: the meta-gradient of 40 tasks x 20 rollouts x 200 steps, by us and by peers.

A half cheetah's sizes (17 observations, 6 actions, a 64-64 tanh policy), one inner step, float32, random samples, whose
values do not affect the time. The contenders' gradients are checked to agree before any is timed. Ours use the matrix
library chosen by agents/outer_steps.py, the others torch's default, and the loop is measured with both.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from agents.meta_objective import MetaObjective, Samples, inner_loss
from agents.promp import ProMPConfig
from envs.locomotion.half_cheetah import HalfCheetahDir
from metarl.adaptation.batching import BATCHINGS
from metarl.adaptation.gradient import GradientAdaptation
from metarl.adaptation.step_sizes import FixedStepSizes
from metarl.nets.mlp import PolicyHead
from metarl.torch_settings import fast_matmul
from metarl.trainer import TrainConfig, Trainer

INNER_LR = 0.1
Contender = Callable[[], Sequence[Tensor]]  # computes the meta-gradient


@dataclass(frozen=True)
class OuterStepSize:
    """The amount of data of an outer step."""

    num_tasks: int = 40
    num_rollouts: int = 20
    num_steps: int = 200

    def __post_init__(self) -> None:
        counts = (self.num_tasks, self.num_rollouts, self.num_steps)
        if min(counts) < 1:
            raise ValueError(f"sizes of the outer step are {counts}; must be positive")


def contenders(size: OuterStepSize) -> dict[str, Contender]:
    """All installed contenders, after checking that their meta-gradients agree."""
    policy, trial = problem(size)
    found: dict[str, Contender] = {
        f"outer_{'our_loop' if batching == 'loop' else batching}": ours(policy, trial, batching)
        for batching in BATCHINGS
    }
    found["outer_loop"] = loop(policy, trial)
    found["outer_loop_our_products"] = fast_matmul()(found["outer_loop"])
    for name, peer in {"higher": _higher, "torchopt": _torchopt}.items():
        if importlib.util.find_spec(name) is not None:
            found[f"outer_{name}"] = peer(policy, trial)
    expected = found["outer_loop"]()
    for contender in found.values():
        for gradient, known in zip(contender(), expected, strict=True):
            torch.testing.assert_close(gradient, known, rtol=1e-2, atol=1e-4)
    return found


def problem(size: OuterStepSize) -> tuple[PolicyHead, list[Samples]]:
    """A policy, and its samples before and after adaptation."""
    family, generator = HalfCheetahDir(), torch.Generator().manual_seed(0)
    obs_size = family.observation_space.shape[0]
    policy = PolicyHead((obs_size, 64, 64), family.action_space, activation="tanh", init_std=1.0, generator=generator)
    return policy, [_samples(policy, size, obs_size, generator) for _ in range(2)]


def simulation_share(size: OuterStepSize) -> float:
    """The fraction of an iteration of MAML-TRPO on half_cheetah_dir spent on collection."""
    from agents.maml import MAMLTRPOConfig

    trainer = Trainer(
        HalfCheetahDir(horizon=size.num_steps),
        MAMLTRPOConfig(num_rollouts=size.num_rollouts),
        TrainConfig(num_iterations=2, num_tasks=size.num_tasks),
        agent_name="maml_trpo",
        seed=0,
    )
    trainer.iterate()  # warm-up
    return trainer.iterate()["time/collect_share"]


def _samples(policy: PolicyHead, size: OuterStepSize, obs_size: int, generator: torch.Generator) -> Samples:
    shape = (size.num_tasks, size.num_rollouts * size.num_steps)
    obs = torch.randn((*shape, obs_size), generator=generator)
    with torch.no_grad():
        distribution: Any = policy(obs)
        action = distribution.sample(generator)
        log_prob = distribution.log_prob(action)
    weight = torch.full(shape, 1 / shape[1])
    advantage = weight * torch.randn(shape, generator=generator)
    return Samples(obs, action, log_prob, weight, advantage, torch.zeros(size.num_tasks))


def ours(policy: PolicyHead, trial: list[Samples], batching: Any) -> Contender:
    """Our outer step's gradient."""
    loss = inner_loss(policy, ProMPConfig().inner_objective)
    adaptation = GradientAdaptation(policy, loss, FixedStepSizes(INNER_LR), batching=batching)
    parts = MetaObjective(adaptation, policy, trial, exploration_credit=0.0).parts()
    parameters = list(policy.parameters())

    @fast_matmul()
    def gradient() -> Sequence[Tensor]:
        total = [torch.zeros_like(parameter) for parameter in parameters]
        for part in parts:
            gradients = torch.autograd.grad(part.share * part.loss(part.states()), parameters)
            total = [before + own for before, own in zip(total, gradients, strict=True)]
        return total

    return gradient


def _surrogate(distribution: Any, samples: Samples) -> Tensor:
    """One task's loss: minus the advantage, weighted by the likelihood ratio."""
    ratio = (distribution.log_prob(samples.action) - samples.log_prob).exp()
    return -(ratio * samples.advantage).sum()


def loop(policy: PolicyHead, trial: list[Samples]) -> Contender:
    """A loop over tasks with plain autograd."""
    names = [name for name, _ in policy.named_parameters()]
    parameters = list(policy.parameters())

    def gradient() -> Sequence[Tensor]:
        total = [torch.zeros_like(parameter) for parameter in parameters]
        num_tasks = len(trial[0])
        for task in range(num_tasks):
            before, after = (samples[task] for samples in trial)
            slopes = torch.autograd.grad(_surrogate(policy(before.obs), before), parameters, create_graph=True)
            own = {name: p - INNER_LR * s for name, p, s in zip(names, parameters, slopes, strict=True)}
            loss = _surrogate(functional_call(policy, own, (after.obs,)), after) / num_tasks
            total = [before + g for before, g in zip(total, torch.autograd.grad(loss, parameters), strict=True)]
        return total

    return gradient


def _higher(policy: PolicyHead, trial: list[Samples]) -> Contender:
    higher = importlib.import_module("higher")

    def gradient() -> Sequence[Tensor]:
        policy.zero_grad()
        for task in range(len(trial[0])):
            before, after = (samples[task] for samples in trial)
            optimizer = torch.optim.SGD(policy.parameters(), lr=INNER_LR)
            with higher.innerloop_ctx(policy, optimizer, copy_initial_weights=False) as (own, steps):
                steps.step(_surrogate(own(before.obs), before))
                (_surrogate(own(after.obs), after) / len(trial[0])).backward()
        return _gradients(policy)

    return gradient


def _torchopt(policy: PolicyHead, trial: list[Samples]) -> Contender:
    torchopt = importlib.import_module("torchopt")

    def gradient() -> Sequence[Tensor]:
        policy.zero_grad()
        optimizer = torchopt.MetaSGD(policy, lr=INNER_LR)
        start_net = torchopt.extract_state_dict(policy, by="reference")
        start_optimizer = torchopt.extract_state_dict(optimizer, by="reference")
        for task in range(len(trial[0])):
            before, after = (samples[task] for samples in trial)
            optimizer.step(_surrogate(policy(before.obs), before))
            (_surrogate(policy(after.obs), after) / len(trial[0])).backward()
            torchopt.recover_state_dict(policy, start_net)
            torchopt.recover_state_dict(optimizer, start_optimizer)
        return _gradients(policy)

    return gradient


def _gradients(net: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in net.parameters() if p.grad is not None]
