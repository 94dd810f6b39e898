"""Baselines of any task family: the simulated random policy, and the family's own bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from experiments.baselines import BaselineResult
from metarl.protocols import TaskFamily
from metarl.records import Record

MAX_ROWS = 256  # in one environment


def simulated_baselines(
    family: TaskFamily, num_trials: int, generator: torch.Generator, ppo_steps: int = 0
) -> list[BaselineResult]:
    """The random policy on `num_trials` test tasks, and the family's bounds on the same tasks.

    ppo_steps: training steps of PPO without meta-learning, see `from_scratch`; 0 leaves it out.
    """
    tasks = family.sample(num_trials, "test", generator)
    total = random_policy(family, tasks, generator)
    results = [BaselineResult("random", float(total.mean()), float(total.std() / num_trials**0.5))]
    for name, returns in family.bounds(tasks, family.num_episodes).items():
        if name != "random":
            results.append(BaselineResult(name, sum(returns), None, None, "the family's bound on these tasks"))
    if ppo_steps:
        from experiments.baselines.from_scratch import ppo_baselines  # imported here because it is slow to import

        results += ppo_baselines(family, tasks, ppo_steps, generator)
    return results


def random_policy(family: TaskFamily, tasks: Record, generator: torch.Generator) -> Tensor:
    """Total reward [N] of one trial of uniformly random actions in each task."""
    return play(family, tasks, lambda obs, tasks: _random_actions(family.action_space, len(obs), generator), generator)


def play(
    family: TaskFamily, tasks: Record, act: Callable[[Tensor, Record], Tensor], generator: torch.Generator
) -> Tensor:
    """Total reward [N] of one trial in each task; `act` gives actions for observations [B, O] and tasks [B]."""
    chunks = [tasks[start : start + MAX_ROWS] for start in range(0, len(tasks), MAX_ROWS)]
    return torch.cat([_play(family, chunk, act, generator) for chunk in chunks])


def _play(
    family: TaskFamily, tasks: Record, act: Callable[[Tensor, Record], Tensor], generator: torch.Generator
) -> Tensor:
    num_rows = len(tasks)
    env: Any = family.make_env(num_rows, generator)
    step = env.reset(tasks)
    total = torch.zeros(num_rows)
    episodes_left = torch.full((num_rows,), family.num_episodes)
    while (active := episodes_left > 0).any():
        step = env.step(act(step.obs, tasks), active)
        total += step.reward
        episodes_left = episodes_left - step.episode_end.long()
    return total


def _random_actions(space: spaces.Box | spaces.Discrete, num_rows: int, generator: torch.Generator) -> Tensor:
    """Actions [B] int64 or [B, A] float32, uniform over the space."""
    if isinstance(space, spaces.Discrete):
        return torch.randint(int(space.n), (num_rows,), generator=generator)
    low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
    return low + (high - low) * torch.rand(num_rows, *space.shape, generator=generator)
