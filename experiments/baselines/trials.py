"""Trials of policies without memory or learning, of any family: uniformly random actions, or a function's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from envs.rows import close
from metarl.protocols import TaskFamily
from metarl.records import Record

MAX_ROWS = 256  # in one environment


def random_policy(family: TaskFamily, tasks: Record, generator: torch.Generator) -> Tensor:
    """Returns [K, N] of the K episodes of one trial of uniformly random actions in each task."""
    return play(family, tasks, lambda obs, tasks: random_actions(family.action_space, len(obs), generator), generator)


def play(
    family: TaskFamily, tasks: Record, act: Callable[[Tensor, Record], Tensor], generator: torch.Generator
) -> Tensor:
    """Returns [K, N] of one trial's episodes in each task; `act` maps observations [B, O] and tasks [B] to actions."""
    chunks = [tasks[start : start + MAX_ROWS] for start in range(0, len(tasks), MAX_ROWS)]
    return torch.cat([_play(family, chunk, act, generator) for chunk in chunks], dim=1)


def _play(
    family: TaskFamily, tasks: Record, act: Callable[[Tensor, Record], Tensor], generator: torch.Generator
) -> Tensor:
    num_rows = len(tasks)
    env: Any = family.make_env(num_rows, generator)
    step = env.reset(tasks)
    returns = torch.zeros(family.num_episodes, num_rows)
    episode, rows = torch.zeros(num_rows, dtype=torch.int64), torch.arange(num_rows)
    while (active := episode < family.num_episodes).any():
        step = env.step(act(step.obs, tasks), active)
        returns[episode[active], rows[active]] += step.reward[active]
        episode = episode + step.episode_end.long()
    close(env)
    return returns


def random_actions(space: spaces.Box | spaces.Discrete, num_rows: int, generator: torch.Generator) -> Tensor:
    """[B] int64 or [B, A] float32, uniform over the space."""
    if isinstance(space, spaces.Discrete):
        return torch.randint(int(space.n), (num_rows,), generator=generator)
    low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
    return low + (high - low) * torch.rand(num_rows, *space.shape, generator=generator)
