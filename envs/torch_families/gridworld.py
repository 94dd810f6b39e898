"""GridNavi: find a goal hidden in a grid, then return to it (Zintgraf et al. 2020, "VariBAD", section 5.1).

Five actions (up, right, down, left, stay), start in the corner (0, 0), the goal uniform over the cells except the start
and its three neighbours; +1 per step that ends on the goal and -0.1 per other step, no termination.

Deviations:
1. The observation is the cell as a one-hot vector by default; the authors' code gives coordinates ("xy" here).
2. The paper defines no out-of-distribution tasks. Ours: goals in the three cells excluded from training.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from envs.splits import check_split
from envs.torch_families.drawing import AGENT, GOAL, GRID, INK, Canvas, DrawnEnv
from envs.torch_families.grid_search import bayes_optimal_returns
from envs.torch_families.labelling import labelled_transitions, labelled_walks
from envs.torch_families.torch_env import one_hot_rows, unit_box
from metarl.checks import at_least, one_of
from metarl.protocols import Split
from metarl.records import LabelledTransitions, Record

MOVES = ((0, 1), (1, 0), (0, -1), (-1, 0), (0, 0))  # up, right, down, left, stay as (dx, dy)
GOAL_REWARD = 1.0
STEP_REWARD = -0.1


@dataclass(frozen=True)
class GridTasks(Record):
    """The goals."""

    goal: Tensor  # [N] int64: the goal's cell, x * size + y


@dataclass(frozen=True)
class GridNavi:
    """A size x size grid with one hidden goal."""

    size: int = 5  # number of cells per side
    horizon: int = 15  # number of steps per episode
    num_episodes: int = 4  # number of episodes per trial
    observation: Literal["one_hot", "xy"] = "one_hot"  # encoding of the cell: one-hot, or coordinates in [0, 1]

    def __post_init__(self) -> None:
        at_least(self, 3, "size")
        at_least(self, 1, "horizon", "num_episodes")
        one_of(self, "observation", ("one_hot", "xy"))

    name = "grid_navi"
    goal_reward, step_reward = GOAL_REWARD, STEP_REWARD

    @property
    def observation_space(self) -> spaces.Box:
        return unit_box(self.size**2 if self.observation == "one_hot" else 2)

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(len(MOVES))

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> GridTasks:
        check_split(self.name, split)
        return self._among(self._goals(split), num_tasks, generator)

    def _goals(self, split: Split) -> tuple[int, ...]:
        """The cells that can hold the goals of a split."""
        near = (1, self.size, self.size + 1)
        return near if split == "ood" else tuple(cell for cell in range(1, self.size**2) if cell not in near)

    def _among(self, cells: tuple[int, ...], num_tasks: int, generator: torch.Generator) -> GridTasks:
        choice = torch.randint(len(cells), (num_tasks,), generator=generator, device=generator.device)
        return GridTasks(torch.tensor(cells, device=generator.device)[choice])

    def in_training_range(self, tasks: GridTasks) -> Tensor:
        """Whether each goal can occur in training: [N] bool."""
        return (tasks.goal // self.size > 1) | (tasks.goal % self.size > 1)

    def make_env(self, num_rows: int, generator: torch.Generator) -> DrawnEnv[GridTasks]:
        return DrawnEnv(_GridDynamics(self), num_rows, generator)

    def image(self, task: GridTasks, trail: Tensor) -> NDArray[np.uint8]:
        """An image of the grid, the goal of one task (leading axis 1) and the path through the cells `trail` [K]."""
        size = self.size
        cells = [divmod(cell, size) for cell in trail.tolist()]
        goal_x, goal_y = divmod(int(task.goal[0]), size)
        canvas = Canvas(limit=size / 2 + 0.25, centre=((size - 1) / 2, (size - 1) / 2))
        canvas.box((goal_x - 0.5, goal_y - 0.5), (goal_x + 0.5, goal_y + 0.5), GOAL)
        for edge in range(size + 1):
            across, end = edge - 0.5, size - 0.5
            canvas.line([(across, -0.5), (across, end)], GRID if 0 < edge < size else INK)
            canvas.line([(-0.5, across), (end, across)], GRID if 0 < edge < size else INK)
        canvas.trail(cells)
        canvas.disc(cells[-1], 0.22, AGENT)
        return canvas.pixels()

    def bounds(self, tasks: GridTasks, num_episodes: int) -> dict[str, Tensor]:
        """Exact values in each task: "oracle" knows its goal, "random" takes uniform actions.

        "bayes_optimal" is a policy that does not know the goal and whose sum over the `num_episodes` episodes is the
        largest in expectation over the training distribution. It is given where every task comes from that
        distribution and the search for it ends in time (as it does at the default size).
        """
        goals = tasks.goal.cpu()
        known = self._simple_bounds(tasks, num_episodes)
        if bool(self.in_training_range(tasks).all()):
            optimal = bayes_optimal_returns(self.size, self.horizon, num_episodes, GOAL_REWARD, STEP_REWARD)
            if optimal is not None:
                known = {"bayes_optimal": torch.tensor(optimal, dtype=torch.float64)[:, goals], **known}
        return known

    def _simple_bounds(self, tasks: GridTasks, num_episodes: int) -> dict[str, Tensor]:
        goals = tasks.goal.cpu()
        return {
            "oracle": self._oracle_returns()[goals].expand(num_episodes, -1),
            "random": self._random_returns()[goals].expand(num_episodes, -1),
        }

    def labelled_transitions(self, tasks: GridTasks, num_steps: int, generator: torch.Generator) -> LabelledTransitions:
        """Uniform transitions, and optimal actions in uniform cells: see `metarl.protocols.LabelsActions`."""
        return labelled_transitions(_GridDynamics(self), tasks, num_steps, generator)

    def labelled_walks(self, tasks: GridTasks, num_steps: int, generator: torch.Generator) -> LabelledTransitions:
        """The same, but that a task's transitions are successive steps of a walk."""
        return labelled_walks(_GridDynamics(self), tasks, num_steps, generator)

    def optimal_actions(self, tasks: GridTasks, obs: Tensor) -> Tensor:
        """Equal probabilities of the actions that lead nearest to the goal: [B, 5]."""
        distance = (obs.unsqueeze(-2) - self.cell_observations(obs.device)).abs().sum(-1)
        return _GridDynamics(self).optimal_policy(tasks, distance.argmin(-1))

    def cell_observations(self, device: torch.device | str = "cpu") -> Tensor:
        """The observation of each cell: [size², O] float32."""
        return _observations(self.size, self.observation == "one_hot", torch.device(device))

    def goal_posterior(self, next_obs: Tensor, reward: Tensor) -> Tensor:
        """The exact probability of each cell being the goal, given the first t transitions of a trial, for every t.

        next_obs [T, B, O]: where each step ended; reward [T, B]. Returns [T + 1, B, size²]; the prior is that of the
        training distribution, uniform over the cells that can hold its goals.
        """
        distance = (next_obs.unsqueeze(-2) - self.cell_observations(next_obs.device)).abs().sum(-1)
        visited = functional.one_hot(distance.argmin(-1), self.size**2).bool()  # [T, B, size²]
        cells = GridTasks(torch.arange(self.size**2, device=next_obs.device))
        open_cells = self.in_training_range(cells).expand(1, *visited.shape[1:])  # [1, B, size²]
        found = visited & (reward > 0).unsqueeze(-1)
        is_empty = torch.cat([~open_cells, visited & ~found]).cummax(0).values
        is_goal = torch.cat([torch.zeros_like(open_cells), found]).cummax(0).values
        weight = torch.where(is_goal.any(-1, keepdim=True), is_goal, ~is_empty).float()
        return weight / weight.sum(-1, keepdim=True)

    def _oracle_returns(self) -> Tensor:
        """The known-goal return of one episode for each goal cell: [size²] float64."""
        cells = torch.arange(self.size**2)
        distance = (cells // self.size + cells % self.size).double()
        steps_on_goal = (self.horizon - distance + 1).clamp(0, self.horizon)
        return steps_on_goal * self.goal_reward + (self.horizon - steps_on_goal) * self.step_reward

    def _random_returns(self) -> Tensor:
        """The uniformly random policy's return of one episode for each goal cell: [size²] float64."""
        moves = _moves(self.size, torch.device("cpu"))  # [size², 5]
        kernel = functional.one_hot(moves, self.size**2).double().mean(dim=1)  # [size², size²]
        position = functional.one_hot(torch.tensor(0), self.size**2).double()
        returns = torch.zeros_like(position)
        for _ in range(self.horizon):
            position = position @ kernel
            returns += self.step_reward + (self.goal_reward - self.step_reward) * position
        return returns


class _GridDynamics:
    """GridNavi's functions; separate from the family because its field `observation` has the function's name."""

    seconds_per_step = 0.25

    def __init__(self, family: GridNavi) -> None:
        self._family = family
        self.horizon = family.horizon
        self.observation_space = family.observation_space
        self.action_space = family.action_space
        self._size = family.size
        self._one_hot = family.observation == "one_hot"

    def initial_state(self, tasks: GridTasks, generator: torch.Generator) -> Tensor:
        return torch.zeros_like(tasks.goal)  # [B] int64, the cell

    def transition(self, tasks: GridTasks, state: Tensor, action: Tensor, generator: torch.Generator) -> Tensor:
        return _moves(self._size, state.device)[state, action]

    def reward(
        self, tasks: GridTasks, state: Tensor, action: Tensor, next_state: Tensor, generator: torch.Generator
    ) -> Tensor:
        return torch.where(next_state == tasks.goal, self._family.goal_reward, self._family.step_reward)

    def terminated(self, tasks: GridTasks, next_state: Tensor) -> None:
        return None

    def observation(self, tasks: GridTasks, state: Tensor) -> Tensor:
        return _observations(self._size, self._one_hot, state.device).index_select(0, state)

    def uniform_state(self, tasks: GridTasks, generator: torch.Generator) -> Tensor:
        return torch.randint(self._size**2, tasks.goal.shape, generator=generator, device=tasks.goal.device)

    def optimal_policy(self, tasks: GridTasks, state: Tensor) -> Tensor:
        """Equal probabilities of the actions that lead nearest to the goal: [B, 5]."""
        reached, goal = _moves(self._size, state.device)[state], tasks.goal.unsqueeze(-1)
        across, up = (reached // self._size - goal // self._size), (reached % self._size - goal % self._size)
        distance = across.abs() + up.abs()
        is_best = (distance == distance.amin(-1, keepdim=True)).float()
        return is_best / is_best.sum(-1, keepdim=True)

    def image(self, task: GridTasks, trail: Tensor) -> NDArray[np.uint8]:
        return self._family.image(task, trail)


@lru_cache
def _moves(size: int, device: torch.device) -> Tensor:
    """The next cell for each cell and action: [size², 5] int64; moves into walls have no effect."""
    cells = torch.arange(size**2)
    columns = [
        (cells // size + dx).clamp(0, size - 1) * size + (cells % size + dy).clamp(0, size - 1) for dx, dy in MOVES
    ]
    return torch.stack(columns, dim=1).to(device)


@lru_cache
def _observations(size: int, one_hot: bool, device: torch.device) -> Tensor:
    """The observation of each cell: [size², O] float32."""
    if one_hot:
        return one_hot_rows(size**2, device)
    cells = torch.arange(size**2)
    return (torch.stack([cells // size, cells % size], dim=1) / (size - 1)).to(device)
