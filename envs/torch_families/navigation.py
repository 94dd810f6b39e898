"""Point robots in the plane: point navigation, the sparse point robot on a semicircle, and wind.

PointNavigation: Finn et al. 2017, "Model-Agnostic Meta-Learning", section 5.3, 2-D navigation.
Semicircle: Rakelly et al. 2019, "PEARL", section 6.3, the sparse point robot.
Wind: Ni et al. 2022, "Recurrent Model-Free RL Can Be a Strong Baseline for Many POMDPs", after Dorfman et al. 2021.

Deviations:
1. Each component of a displacement is clipped to 0.1; in the MAML code a wrapper does this.
2. PEARL trains its critic on the dense reward and shows the sparse one to its encoder; here the reward is one or the
   other, and the dense one is also a metric. Its tasks are a fixed list of 100 angles; ours are sampled afresh.
3. None of the papers defines out-of-distribution tasks. Ours: goals in a band outside the training square, goals on
   the other semicircle, winds stronger than any in training (yet weaker than the point).
4. PointNavigation's trial has as many episodes as the paper's curve has points, 0 to 3 updates. Its "oracle" bound is
   the optimum, -0.51; the paper's oracle, -2.29, is a policy trained with the goal as an input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from envs.splits import check_split
from envs.torch_families.drawing import GOAL, GRID, INK, REGION, Canvas, DrawnEnv
from envs.torch_families.torch_env import unit_box
from metarl.checks import at_least
from metarl.protocols import Split
from metarl.records import Record

MAX_STEP = 0.1  # largest displacement along each axis
WIND_GOAL = (0.0, 1.0)


@dataclass(frozen=True)
class PointTasks(Record):
    """The goals in the plane, and the winds."""

    goal: Tensor  # [N, 2] float32
    wind: Tensor  # [N, 2] float32: displacement added at each step; zero in all families except Wind


@dataclass(frozen=True)
class _Point:
    """The common part of the three families: state and observation are the position, which starts at the origin."""

    horizon: int  # number of steps per episode
    num_episodes: int  # number of episodes per trial

    GOAL_RADIUS = 0.0  # radius of the goal's reward, for sparse rewards
    VIEW = 1.25  # smallest half-width of the image, in the plane's units

    def __post_init__(self) -> None:
        at_least(self, 1, "horizon", "num_episodes")

    @property
    def observation_space(self) -> spaces.Box:
        return unit_box(2, -math.inf, math.inf)

    @property
    def action_space(self) -> spaces.Box:
        return unit_box(2, -MAX_STEP, MAX_STEP)

    def initial_state(self, tasks: PointTasks, generator: torch.Generator) -> Tensor:
        return torch.zeros_like(tasks.goal)  # [B, 2]

    def transition(self, tasks: PointTasks, state: Tensor, action: Tensor, generator: torch.Generator) -> Tensor:
        return state + action + tasks.wind

    def terminated(self, tasks: PointTasks, next_state: Tensor) -> Tensor | None:
        return None

    def observation(self, tasks: PointTasks, state: Tensor) -> Tensor:
        return state.clone()

    @property
    def seconds_per_step(self) -> float:
        return 0.1

    def image(self, task: PointTasks, trail: Tensor) -> NDArray[np.uint8]:
        """An image of the goal with its reward radius, the wind and the path; zooms out to show all of it."""
        points, goal = trail.tolist(), task.goal[0].tolist()
        farthest = float(torch.cat([trail, task.goal]).abs().max())
        canvas = Canvas(limit=max(self.VIEW, math.ceil(1.1 * farthest * 4) / 4))
        self._landscape(canvas)
        for axis in ([(-100, 0), (100, 0)], [(0, -100), (0, 100)]):
            canvas.line(axis, GRID, width=1)
        canvas.disc(goal, self.GOAL_RADIUS, GOAL, filled=False)
        wind = task.wind[0].tolist()
        if any(wind):  # drawn at four times its length, from the point
            tip = [place + 4 * push for place, push in zip(points[-1], wind, strict=True)]
            canvas.line([points[-1], tip], INK, width=3)
            canvas.dot(tip, 5, INK)
        canvas.trail(points)
        canvas.dot(goal, 5, GOAL)  # last: the agent does not hide it
        return canvas.pixels()

    def _landscape(self, canvas: Canvas) -> None:
        """Draw the region of training goals."""


@dataclass(frozen=True)
class PointNavigation(_Point):
    """Go to a goal in [-0.5, 0.5]²; the reward is minus the distance, the episode ends within 0.01 in both axes."""

    horizon: int = 100  # number of steps per episode
    num_episodes: int = 4  # number of episodes per trial

    GOAL_LIMIT = 0.5
    OOD_LIMIT = 0.75
    TOLERANCE = 0.01
    VIEW = 0.75

    name = "point_navigation"

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> PointTasks:
        check_split(self.name, split)
        draw = _square_band if split == "ood" else _square
        goal = draw(num_tasks, self.GOAL_LIMIT, self.OOD_LIMIT, generator)
        return PointTasks(goal, torch.zeros_like(goal))

    def in_training_range(self, tasks: PointTasks) -> Tensor:
        """Whether each goal can occur in training: [N] bool."""
        return (tasks.goal.abs() <= self.GOAL_LIMIT).all(dim=1)

    def make_env(self, num_rows: int, generator: torch.Generator) -> DrawnEnv[PointTasks]:
        return DrawnEnv(self, num_rows, generator)

    def reward(
        self, tasks: PointTasks, state: Tensor, action: Tensor, next_state: Tensor, generator: torch.Generator
    ) -> Tensor:
        return -_distance(next_state, tasks.goal)

    def terminated(self, tasks: PointTasks, next_state: Tensor) -> Tensor:
        return ((next_state - tasks.goal).abs() < self.TOLERANCE).all(dim=1)

    def bounds(self, tasks: PointTasks, num_episodes: int) -> dict[str, Tensor]:
        """Exact: "oracle" knows the goals of `tasks`."""
        return {"oracle": _oracle_returns(self, tasks).expand(num_episodes, -1)}

    def _landscape(self, canvas: Canvas) -> None:
        canvas.box((-self.GOAL_LIMIT, -self.GOAL_LIMIT), (self.GOAL_LIMIT, self.GOAL_LIMIT), REGION)


@dataclass(frozen=True)
class Semicircle(_Point):
    """Find a goal on the unit semicircle; the reward is 1 - distance within 0.2 of it and zero elsewhere.

    With `dense`, the reward is minus the distance, which is also a metric of both variants, for learning from it in
    meta-training.
    """

    horizon: int = 20  # number of steps per episode
    num_episodes: int = 5  # number of episodes per trial
    dense: bool = False  # whether the reward is minus the distance everywhere

    GOAL_RADIUS = 0.2

    name = "semicircle"

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> PointTasks:
        check_split(self.name, split)
        uniform = torch.rand(num_tasks, generator=generator, device=generator.device)
        angle = (uniform * math.pi).clamp(min=1e-6)  # (0, pi): the two semicircles have no goal in common
        goal = torch.stack([angle.cos(), -angle.sin() if split == "ood" else angle.sin()], dim=1)
        return PointTasks(goal, torch.zeros_like(goal))

    def in_training_range(self, tasks: PointTasks) -> Tensor:
        """Whether each goal can occur in training: [N] bool."""
        return tasks.goal[:, 1] > 0

    def make_env(self, num_rows: int, generator: torch.Generator) -> DrawnEnv[PointTasks]:
        return DrawnEnv(self, num_rows, generator)

    def reward(
        self, tasks: PointTasks, state: Tensor, action: Tensor, next_state: Tensor, generator: torch.Generator
    ) -> Tensor:
        distance = _distance(next_state, tasks.goal)
        return -distance if self.dense else torch.where(distance <= self.GOAL_RADIUS, 1 - distance, 0.0)

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("dense_reward",)

    def metrics(self, tasks: PointTasks, next_state: Tensor) -> Tensor:
        return -_distance(next_state, tasks.goal)[:, None]

    def bounds(self, tasks: PointTasks, num_episodes: int) -> dict[str, Tensor]:
        """Exact: "oracle" knows the goals of `tasks`."""
        return {"oracle": _oracle_returns(self, tasks).expand(num_episodes, -1)}

    def _landscape(self, canvas: Canvas) -> None:
        angles = [math.pi * part / 64 for part in range(65)]
        canvas.line([(math.cos(angle), math.sin(angle)) for angle in angles], REGION, width=12)


@dataclass(frozen=True)
class Wind(_Point):
    """Reach the goal (0, 1) in a wind that pushes the point; the reward is 1 per step within 0.03 of it."""

    horizon: int = 75  # number of steps per episode
    num_episodes: int = 1  # number of episodes per trial

    GOAL_RADIUS = 0.03
    WIND_LIMIT = 0.08
    OOD_LIMIT = 0.095

    name = "wind"

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> PointTasks:
        check_split(self.name, split)
        draw = _square_band if split == "ood" else _square
        wind = draw(num_tasks, self.WIND_LIMIT, self.OOD_LIMIT, generator)
        return PointTasks(torch.tensor(WIND_GOAL, device=wind.device).repeat(num_tasks, 1), wind)

    def in_training_range(self, tasks: PointTasks) -> Tensor:
        """Whether each wind can occur in training: [N] bool."""
        return (tasks.wind.abs() <= self.WIND_LIMIT).all(dim=1)

    def make_env(self, num_rows: int, generator: torch.Generator) -> DrawnEnv[PointTasks]:
        return DrawnEnv(self, num_rows, generator)

    def reward(
        self, tasks: PointTasks, state: Tensor, action: Tensor, next_state: Tensor, generator: torch.Generator
    ) -> Tensor:
        return (_distance(next_state, tasks.goal) <= self.GOAL_RADIUS).float()

    def bounds(self, tasks: PointTasks, num_episodes: int) -> dict[str, Tensor]:
        """Exact: "oracle" knows the winds of `tasks`."""
        return {"oracle": _oracle_returns(self, tasks).expand(num_episodes, -1)}


def _distance(position: Tensor, goal: Tensor) -> Tensor:
    return torch.linalg.vector_norm(position - goal, dim=1)  # [B]


def _square(num_points: int, limit: float, _: float, generator: torch.Generator) -> Tensor:
    """Uniform points in the square of half-width `limit`: [N, 2]."""
    return (2 * torch.rand(num_points, 2, generator=generator, device=generator.device) - 1) * limit


def _square_band(num_points: int, inner: float, outer: float, generator: torch.Generator) -> Tensor:
    """Points outside the square of half-width `inner` and inside that of `outer`: [N, 2]."""
    direction = _square(num_points, 1.0, 1.0, generator)
    direction = direction / direction.abs().max(dim=1, keepdim=True).values  # on the edge of the unit square
    share = torch.rand(num_points, 1, generator=generator, device=generator.device).clamp(min=1e-4)  # never `inner`
    return direction * (inner + (outer - inner) * share)


def _oracle_returns(family: PointNavigation | Semicircle | Wind, tasks: PointTasks) -> Tensor:
    """The return of one episode in each task for a point that knows it: [N].

    Moving towards the goal as far as each axis allows is optimal: the axes do not interact, so this minimises the
    difference along both at every time, and all rewards here decrease with distance.
    """
    env = family.make_env(len(tasks), torch.Generator(tasks.goal.device))
    step = env.reset(tasks)
    active = torch.ones_like(step.terminated)
    total = torch.zeros_like(step.reward)
    for _ in range(family.horizon):
        step = env.step(tasks.goal - step.obs - tasks.wind, active)
        total += step.reward
        active = active & ~step.episode_end
    return total
