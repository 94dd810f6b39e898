"""Baselines of any task family: the simulated random policy, and the family's own bounds."""

from __future__ import annotations

import torch

from experiments.baselines import BaselineResult
from experiments.baselines.from_scratch import ppo_baselines
from experiments.baselines.trials import random_policy
from metarl.protocols import TaskFamily


def simulated_baselines(
    family: TaskFamily, num_trials: int, generator: torch.Generator, ppo_steps: int = 0
) -> list[BaselineResult]:
    """The random policy on `num_trials` test tasks, and the family's bounds on the same tasks.

    ppo_steps: training steps of PPO without meta-learning, see `from_scratch`; 0 leaves it out.
    """
    tasks = family.sample(num_trials, "test", generator)
    results = [BaselineResult.of("random", random_policy(family, tasks, generator))]
    for name, values in family.bounds(tasks, family.num_episodes).items():
        returns, source = torch.as_tensor(values), "the family's bound on these tasks"
        if name == "random":
            continue
        if returns.ndim == 2:
            results.append(BaselineResult.of(name, returns, None, source))
        else:
            means = tuple(returns.tolist())
            results.append(BaselineResult(name, sum(means), None, None, source, means))
    if ppo_steps:
        results += ppo_baselines(family, tasks, ppo_steps, generator)
    return results
