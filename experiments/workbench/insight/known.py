"""What a perfect observer could know of tasks after each episode, where the exact posterior is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from envs.torch_families.bandits import BernoulliBandit, GaussianBandit
from experiments.baselines.bandits import Belief
from experiments.experiment.beliefs import GoalFamily
from metarl.records import Trajectory


@dataclass(frozen=True)
class Known:
    """Exact knowledge of one parameter of N tasks, before any data and after each of K episodes."""

    chances: Tensor | None = None  # [K + 1, N, C], the probability of each value 0, 1, ... of a whole number
    mean: Tensor | None = None  # [K + 1, N, ...], the posterior mean of numbers

    def right(self) -> Tensor:
        """The probability of the most probable value, which is how often the best guess is right: [K + 1, N]."""
        assert self.chances is not None
        return self.chances.amax(-1)


def known_of(family: Any, trajectory: Trajectory[Any]) -> dict[str, Known]:
    """What the transitions of whole trials, one row per task, tell of each parameter; empty where nobody has solved it.

    The goal in a grid (`GoalFamily`), and the means of the arms of a bandit.
    """
    if isinstance(family, GoalFamily):
        posterior = family.goal_posterior(trajectory.next_obs, trajectory.reward)  # [T + 1, N, C]
        return {"goal": Known(chances=_after_episodes(posterior, trajectory))}
    if isinstance(family, (BernoulliBandit, GaussianBandit)):
        belief = Belief(family, trajectory.reward.shape[1])
        means = [belief.mean]
        for action, reward in zip(trajectory.decision.action, trajectory.reward, strict=True):
            belief.update(action, reward)
            means.append(belief.mean)
        return {"mean": Known(mean=_after_episodes(torch.stack(means), trajectory))}
    return {}


def _after_episodes(values: Tensor, trajectory: Trajectory[Any]) -> Tensor:
    """Values after 0, 1, ... T steps [T + 1, N, ...] as those after 0, 1, ... K episodes [K + 1, N, ...]."""
    ends = (trajectory.episode_end & trajectory.valid).T.nonzero()[:, 1].view(values.shape[1], -1).T + 1  # [K, N]
    tasks = torch.arange(values.shape[1], device=values.device)
    return torch.cat([values[:1], values[ends, tasks]]).cpu()
