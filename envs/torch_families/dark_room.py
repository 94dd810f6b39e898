"""The dark room: a goal that is seen only when one stands on it (Laskin et al. 2022, "In-context RL with AD").

The settings are those of Lee et al. 2023, "Supervised pretraining can learn in-context RL": five actions, start in the
corner (0, 0), +1 per step that ends on the goal and 0 per other step, no termination. Goals are divided between
training (four fifths of the cells) and test; both kinds lie anywhere.

Deviations:
1. Which cells are test goals is drawn once, for each size, from a fixed seed of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from envs.splits import check_split
from envs.torch_families.gridworld import GridNavi, GridTasks
from metarl.protocols import Split

TRAIN_SHARE = 0.8


@dataclass(frozen=True)
class DarkRoom(GridNavi):
    """A size x size room with one hidden goal, whose test goals never occur in training."""

    size: int = 10  # number of cells per side
    horizon: int = 100  # number of steps per episode
    observation: Literal["one_hot", "xy"] = "xy"  # encoding of the cell: one-hot, or coordinates in [0, 1]

    name = "dark_room"
    goal_reward, step_reward = 1.0, 0.0

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> GridTasks:
        check_split(self.name, split, has_ood=False, reason="its test goals are new cells of the same room")
        return self._among(self._goals(split), num_tasks, generator)

    def in_training_range(self, tasks: GridTasks) -> Tensor:
        """Whether each goal lies in the room, among training goals: [N] bool; so do all, test goals too."""
        return torch.ones_like(tasks.goal, dtype=torch.bool)

    def bounds(self, tasks: GridTasks, num_episodes: int) -> dict[str, Tensor]:
        """Exact values in each task: "oracle" knows its goal, "random" takes uniform actions."""
        return self._simple_bounds(tasks, num_episodes)

    def _goals(self, split: Split) -> tuple[int, ...]:
        train, test = _divided(self.size)
        return test if split == "test" else train


@lru_cache
def _divided(size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The training goals and the test goals."""
    cells = torch.randperm(size**2, generator=torch.Generator().manual_seed(0)).tolist()
    num_train = round(TRAIN_SHARE * len(cells))
    return tuple(sorted(cells[:num_train])), tuple(sorted(cells[num_train:]))
