"""What a family is like before anything is learned in it: ranges, and what two policies that know nothing get."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from envs.rows import close
from experiments.baselines.trials import random_actions
from metarl.evaluation import metrics_by_name
from metarl.protocols import Split, TaskFamily
from metarl.records import Decision, Record, Step, Trajectory
from metarl.rl.rollouts import collect

Ranges = dict[str, tuple[float, float]]  # smallest and largest value, by name


@dataclass(frozen=True)
class Behaviour:
    """The episodes of one policy, one in each of the tasks."""

    observed: list[tuple[float, float, float]]  # of each observed number: smallest, mean, largest
    reward: tuple[float, float, float]  # of a step: smallest, mean, largest
    metrics: dict[str, float]  # means over steps of what the family measures
    episode_return: float
    episode_steps: float
    terminated: float  # fraction of the episodes that the task ended, and not the time limit
    num_diverged: int | None  # simulations reset because they diverged; None where they cannot
    steps_per_second: float  # of all tasks together


@dataclass(frozen=True)
class FamilyFacts:
    """The tasks of a family, and its policies' behaviours."""

    num_tasks: int
    tasks: dict[str, Ranges]  # by split, each parameter's range in a sample of the tasks
    at_rest: Behaviour  # the middle of every action's range, or the first action
    random: Behaviour  # uniformly random actions


class _Scripted:
    """An agent that knows nothing: its actions are a function of the number of rows."""

    block: int | None = None
    training_blocks: int | None = None

    def __init__(self, action: Callable[[int], Tensor]) -> None:
        self._action = action

    def prior(self, num_tasks: int, copies: int = 1) -> None:
        return None

    def observe(self, state: None, action: Tensor | None, step: Step) -> None:
        return None

    def act(self, state: None, obs: Tensor, generator: torch.Generator | None) -> Decision:
        return Decision(self._action(len(obs)))


def family_facts(family: TaskFamily, num_tasks: int, seed: int) -> FamilyFacts:
    """Facts from `num_tasks` training tasks.

    Raises:
        EnvironmentFailed, FloatingPointError: as `metarl.rl.rollouts.collect`.
    """
    generator, space = torch.Generator().manual_seed(seed), family.action_space
    tasks = family.sample(num_tasks, "train", generator)
    rest = torch.zeros((), dtype=torch.int64) if isinstance(space, spaces.Discrete) else _middle(space)
    return FamilyFacts(
        num_tasks=num_tasks,
        tasks={split: ranges for split in ("train", "ood") if (ranges := _task_ranges(family, split, seed))},
        at_rest=_behaviour(family, tasks, lambda rows: rest.expand(rows, *rest.shape).clone(), generator),
        random=_behaviour(family, tasks, lambda rows: random_actions(space, rows, generator), generator),
    )


def _middle(space: spaces.Box) -> Tensor:
    return (torch.as_tensor(space.low) + torch.as_tensor(space.high)) / 2


def _task_ranges(family: TaskFamily, split: Split, seed: int) -> Ranges:
    """The range of each parameter in a thousand tasks; empty where the family does not declare the split."""
    try:
        tasks = family.sample(1000, split, torch.Generator().manual_seed(seed))
    except ValueError:
        return {}
    fields = {name: value for name, value in vars(tasks).items() if isinstance(value, Tensor)}
    return {name: (float(value.min()), float(value.max())) for name, value in fields.items() if value.numel()}


def _behaviour(
    family: TaskFamily, tasks: Record, action: Callable[[int], Tensor], generator: torch.Generator
) -> Behaviour:
    env: Any = family.make_env(len(tasks), generator)
    agent: Any = _Scripted(action)
    started = time.perf_counter()
    trajectory: Trajectory[Decision] = collect(env, agent, tasks, 1, generator=generator)
    seconds = time.perf_counter() - started
    valid = trajectory.valid
    obs, reward = trajectory.obs[valid].double(), trajectory.reward[valid].double()
    measured = metrics_by_name(env, trajectory.episode_metrics(1))
    behaviour = Behaviour(
        observed=list(zip(*(each.tolist() for each in (obs.amin(0), obs.mean(0), obs.amax(0))), strict=True)),
        reward=(float(reward.min()), float(reward.mean()), float(reward.max())),
        metrics={name: float(values.nanmean()) for name, values in measured.items()},
        episode_return=float(trajectory.episode_returns(1).mean()),
        episode_steps=trajectory.num_steps / len(tasks),
        terminated=float((trajectory.terminated & valid).any(0).double().mean()),
        num_diverged=getattr(env, "num_diverged", None),
        steps_per_second=trajectory.num_steps / seconds,
    )
    close(env)
    return behaviour
