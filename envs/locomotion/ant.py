"""The ant's task families: run in a direction, to a goal, or at a velocity.

Direction: Rothfuss et al. 2019 (ProMP) and Rakelly et al. 2019 (PEARL); goal: both, and Zintgraf et al. 2021 (HyperX)
for the sparse reward; velocity: Finn et al. 2017 (MAML). Mechanics, start and limits of the torso's height are those of
Gymnasium's Ant-v5, dt = 0.05 s, actions in [-1, 1].

Deviations and choices, where published code differs:
1. No contact forces: they are neither observed (27 and 29 numbers instead of 111 and 113) nor penalised. With
   `contact_forces=True` they are, as in Ant-v5: 105 and 107 numbers, without the world's own.
2. Velocities are computed from the torso's position, which is one substep behind, as in Gymnasium.
3. If falling ends the episode, that step earns no alive bonus (as in Gymnasium; the papers' code pays it).
4. In VariBAD's published code, "forward and backward" are two directions 57° to the left and right; not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from gymnasium import spaces
from torch import Tensor

from envs.locomotion.contacts import ANT_CONTACTS, FIELD, Contacts
from envs.locomotion.headings import HeadingFamily
from envs.locomotion.ranges import Disc
from envs.locomotion.robots import ANT, Robot, RobotFamily, T, squared
from envs.locomotion.tasks import GoalTasks, HeadingTasks, VelocityTasks
from envs.locomotion.velocity import VelocityFamily
from envs.samplers import check_fields
from envs.simulators.state import State
from envs.splits import check_split
from metarl.checks import at_least
from metarl.protocols import Split

TORSO = 1
LOWEST, HIGHEST = 0.2, 1.0  # limits of the torso's height, m


@dataclass(frozen=True)
class Ant(RobotFamily[T]):
    """Base class of the ant's families."""

    contact_forces: bool = False  # whether contact forces are observed and penalised, by 0.0005 of their squares

    robot: ClassVar[Robot] = ANT
    contacts: ClassVar[Contacts | None] = ANT_CONTACTS

    @property
    def fields_before(self) -> tuple[str, ...]:
        return ("xpos",)

    def robot_velocity(self, before: State, after: State, dt: float) -> Tensor:
        """The torso's velocity in the plane, [B, 2] m/s."""
        return (after.xpos[:, TORSO, :2] - before.xpos[:, TORSO, :2]) / dt


def stands(state: State) -> Tensor:
    """Whether the torso's height is within its limits: [B] bool."""
    height = state.qpos[:, 2]
    return (height >= LOWEST) & (height <= HIGHEST)


@dataclass(frozen=True)
class AntDir(Ant[HeadingTasks], HeadingFamily):
    """Run in a direction d; reward d.v - control_cost |a|² + alive_bonus, until the ant falls.

    For `directions` and the split "ood", see `envs.locomotion.headings`. MAML's weights are `control_cost=0.005,
    alive_bonus=0.05`.
    """

    control_cost: float = 0.5  # weight of the squared norm of the action in the cost
    alive_bonus: float = 1.0  # reward per step in which the robot has not fallen

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "alive_bonus")

    name = "ant_dir"

    def reward(self, before: State, after: State, action: Tensor, tasks: HeadingTasks, dt: float) -> Tensor:
        cost = self.control_cost * squared(action) + self.contact_cost(after)
        return (self.velocity_along(before, after, tasks, dt) + self.alive_bonus * stands(after) - cost).float()

    def terminated(self, state: State, tasks: HeadingTasks) -> Tensor | None:
        return ~stands(state)


@dataclass(frozen=True)
class AntVel(Ant[VelocityTasks], VelocityFamily):
    """Run along x at a velocity v* ~ U[0, 3]; reward -|v - v*| + 1 - control_cost |a|² + alive_bonus.

    The episode ends when the ant falls. The split "ood" has velocities up to a third beyond this range.
    """

    control_cost: float = 0.005  # weight of the squared norm of the action in the cost
    alive_bonus: float = 0.05  # reward per step in which the robot has not fallen

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "alive_bonus")

    name = "ant_vel"

    def reward(self, before: State, after: State, action: Tensor, tasks: VelocityTasks, dt: float) -> Tensor:
        cost = self.control_cost * squared(action) + self.contact_cost(after)
        return (1 - self.velocity_error(before, after, tasks, dt) + self.alive_bonus * stands(after) - cost).float()

    def terminated(self, state: State, tasks: VelocityTasks) -> Tensor | None:
        return ~stands(state)


@dataclass(frozen=True)
class AntGoal(Ant[GoalTasks]):
    """Go to a goal g and stay there; the ant's own position is observed, and falling does not end the episode.

    Dense: reward -|x - g_x| - |y - g_y| - control_cost |a|². Sparse: with the Euclidean distance s to the goal, 1 - s
    where s <= 0.75 and -0.75 elsewhere, minus the control cost, whose weight is 0.01 in HyperX.
    """

    control_cost: float = 0.1  # weight of the squared norm of the action in the cost
    goal: Disc = Disc(3.0)  # goals around the start
    sparse: bool = False  # whether the reward depends on the distance only near the goal

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, Disc, "goal")

    name = "ant_goal"

    @property
    def fields(self) -> tuple[str, ...]:
        return () if self.observed_contacts is None else (FIELD,)

    @property
    def fields_before(self) -> tuple[str, ...]:
        return ()

    @property
    def observation_space(self) -> spaces.Box:
        size = 29 if self.observed_contacts is None else 29 + self.observed_contacts.num_observed
        return spaces.Box(-float("inf"), float("inf"), (size,))

    def observation(self, state: State, tasks: GoalTasks) -> Tensor:
        """All positions and velocities [B, 29] float32, then contact forces, if any."""
        return self.with_contacts(torch.cat((state.qpos, state.qvel), dim=1), state).float()

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> GoalTasks:
        check_split(self.name, split)
        return GoalTasks(self.goal.sample((num_tasks,), split, generator))

    def in_training_range(self, tasks: GoalTasks) -> Tensor:
        return self.goal.contains(tasks.goal)

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("distance_to_goal",)  # m, Euclidean

    def reward(self, before: State, after: State, action: Tensor, tasks: GoalTasks, dt: float) -> Tensor:
        offset = after.qpos[:, :2] - tasks.goal
        if self.sparse:
            distance = offset.norm(dim=1)
            value = torch.where(distance <= 0.75, 1 - distance, -0.75)
        else:
            value = -offset.abs().sum(dim=1)
        return (value - self.control_cost * squared(action) - self.contact_cost(after)).float()

    def metrics(self, before: State, after: State, action: Tensor, tasks: GoalTasks, dt: float) -> Tensor:
        return (after.qpos[:, :2] - tasks.goal).norm(dim=1).float()[:, None]
