"""The humanoid's task family, running in a direction: Rothfuss et al. 2019 (ProMP), Rakelly et al. 2019 (PEARL).

Mechanics, start, weights and limits of the torso's height are those of Gymnasium's Humanoid-v5; dt = 0.015 s, and
actions are in [-0.4, 0.4].

Deviations and choices, where published code differs:
1. No contact forces: they are neither observed (270 numbers instead of 348) nor penalised. With `contact_forces=True`
   they are, as in Humanoid-v5.
2. The velocity is computed from the centre of mass, which is one substep behind, as in Gymnasium.
3. The step in which the humanoid falls earns no alive bonus (as in Gymnasium; the papers' code pays it).

The bonus dominates: 200 steps of standing still return 1000 in every task, so look at the metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from envs.locomotion.contacts import HUMANOID_CONTACTS, Contacts
from envs.locomotion.headings import Directions, HeadingFamily
from envs.locomotion.robots import HUMANOID, Robot, RobotFamily, T, squared
from envs.locomotion.tasks import HeadingTasks
from envs.simulators.state import State
from metarl.checks import at_least

FORWARD_WEIGHT = 1.25
LOWEST, HIGHEST = 1.0, 2.0  # limits of the torso's height, m


@dataclass(frozen=True)
class Humanoid(RobotFamily[T]):
    """Base class of the humanoid's families."""

    control_cost: float = 0.1  # weight of the squared norm of the action in the cost
    alive_bonus: float = 5.0  # reward per step in which the robot has not fallen
    contact_forces: bool = False  # whether contact forces are observed and penalised, by 5e-7 of their squares

    robot: ClassVar[Robot] = HUMANOID
    contacts: ClassVar[Contacts | None] = HUMANOID_CONTACTS

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "alive_bonus")

    @property
    def fields_before(self) -> tuple[str, ...]:
        return ("subtree_com",)

    def robot_velocity(self, before: State, after: State, dt: float) -> Tensor:
        """The velocity of the body's centre of mass, [B, 2] m/s."""
        return (after.subtree_com[:, 0, :2] - before.subtree_com[:, 0, :2]) / dt

    def observation(self, state: State, tasks: T) -> Tensor:
        """Positions without x and y, velocities, the bodies' inertias and velocities, the hinges' torques: [B, 270].

        Then contact forces, if any.
        """
        inertia, velocity = state.cinert[:, 1:].flatten(1), state.cvel[:, 1:].flatten(1)
        parts = (state.qpos[:, 2:], state.qvel, inertia, velocity, state.qfrc_actuator[:, 6:])
        return self.with_contacts(torch.cat(parts, dim=1), state).float()

    def terminated(self, state: State, tasks: T) -> Tensor | None:
        return ~stands(state)


def stands(state: State) -> Tensor:
    """Whether the torso's height is within its limits: [B] bool."""
    height = state.qpos[:, 2]
    return (height > LOWEST) & (height < HIGHEST)


@dataclass(frozen=True)
class HumanoidDir(Humanoid[HeadingTasks], HeadingFamily):
    """Run in a direction d; reward 1.25 d.v - control_cost |a|² + alive_bonus, until the humanoid falls.

    For `directions` and the split "ood", see `HeadingFamily`.
    """

    directions: Directions = "circle"  # set of directions: a circle, forward and backward, or four axes

    name = "humanoid_dir"

    def reward(self, before: State, after: State, action: Tensor, tasks: HeadingTasks, dt: float) -> Tensor:
        along = self.velocity_along(before, after, tasks, dt)
        gain = FORWARD_WEIGHT * along + self.alive_bonus * stands(after)
        return (gain - self.control_cost * squared(action) - self.contact_cost(after)).float()
