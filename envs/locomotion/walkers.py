"""The planar walker's and the hopper's task families: run with changed physics, or at a velocity.

Changed physics: the random-parameter benchmarks of Rothfuss et al. 2019 (ProMP) and Rakelly et al. 2019 (PEARL).
Velocity: Rothfuss et al. 2019. Mechanics, start, clipped velocities in the observation and the limits of standing are
those of Gymnasium's Walker2d-v5 and Hopper-v5; actions are in [-1, 1].

Deviations and choices, where published code differs:
1. A step has 8 substeps of 2 ms, the papers' dt = 0.016 s; theirs with changed physics has 4 of 4 ms. `frame_skip=4`
   is Gymnasium's.
2. Gymnasium's version 5 gives both of the walker's feet a friction of 1.9; the papers' right foot has 0.9.
3. Tasks are sampled afresh from the distribution; the papers sample 40 for training and 10 for testing, once.
4. The step in which the robot falls earns no alive bonus (as in Gymnasium; the papers' code pays it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from envs.locomotion.forward import RandomParameters
from envs.locomotion.ranges import Multiplier
from envs.locomotion.robots import HOPPER, WALKER2D, Robot, RobotFamily, T, squared, x_velocity
from envs.locomotion.tasks import InertiaTasks, VelocityTasks
from envs.locomotion.velocity import VelocityFamily
from envs.samplers import Range
from envs.simulators.state import State
from metarl.checks import at_least
from metarl.protocols import Split


@dataclass(frozen=True)
class _Planar(RobotFamily[T]):
    """Base class of robots that stand in the plane of x and z."""

    control_cost: float = 1e-3  # weight of the squared norm of the action in the cost
    alive_bonus: float = 1.0  # reward per step in which the robot has not fallen
    frame_skip: int = 8  # pyright: ignore[reportIncompatibleMethodOverride]
    """number of simulation steps per environment step"""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "alive_bonus")

    def stands(self, state: State) -> Tensor:
        """Whether the robot has not fallen: [B] bool."""
        height, pitch = state.qpos[:, 1], state.qpos[:, 2]
        if self.robot is WALKER2D:
            return (height > 0.8) & (height < 2.0) & (pitch.abs() < 1.0)
        sane = (state.qpos[:, 2:].abs() < 100).all(dim=1) & (state.qvel.abs() < 100).all(dim=1)
        return sane & (height > 0.7) & (pitch.abs() < 0.2)

    def terminated(self, state: State, tasks: T) -> Tensor | None:
        return ~self.stands(state)


@dataclass(frozen=True)
class _RandParams(_Planar[InertiaTasks], RandomParameters[InertiaTasks]):  # pyright: ignore[reportIncompatibleVariableOverride]
    """Run forward with changed physics; reward v - control_cost |a|² + alive_bonus, until the robot falls.

    Every element of mass, inertia and friction is multiplied by 1.5^u and of damping by 1.3^u, each with its own
    u ~ U(-3, 3). With `inertia_follows_mass`, a body's inertia has its mass's multiplier. For u in the split "ood", see
    `envs.samplers`.
    """

    body_inertia: Multiplier = Multiplier(1.5, 3.0)  # multipliers of the bodies' inertias about the principal axes
    inertia_follows_mass: bool = False  # whether a body's inertia has the multiplier of its mass

    tasks_class: ClassVar[type[InertiaTasks]] = InertiaTasks

    @property
    def samplers(self) -> Mapping[str, Multiplier]:
        return {
            "body_mass": self.body_mass,
            "body_inertia": self.body_mass if self.inertia_follows_mass else self.body_inertia,
            "dof_damping": self.dof_damping,
            "geom_friction": self.geom_friction,
        }

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> InertiaTasks:
        tasks = super().sample(num_tasks, split, generator)
        if not self.inertia_follows_mass:
            return tasks
        return replace(tasks, body_inertia=tasks.body_mass[:, :, None].expand_as(tasks.body_inertia).clone())

    def reward(self, before: State, after: State, action: Tensor, tasks: InertiaTasks, dt: float) -> Tensor:
        gain = x_velocity(before, after, dt) + self.alive_bonus * self.stands(after)
        return (gain - self.control_cost * squared(action)).float()


@dataclass(frozen=True)
class Walker2dRandParams(_RandParams):
    """Run forward on two legs with changed physics: masses, inertias, damping and friction of every element.

    Reward v - control_cost |a|² + alive_bonus, until the walker falls. Each element has a multiplier of its own.
    """

    robot: ClassVar[Robot] = WALKER2D
    num_bodies: ClassVar[int] = 7
    num_geoms: ClassVar[int] = 8

    name = "walker2d_rand_params"


@dataclass(frozen=True)
class HopperRandParams(_RandParams):
    """Hop forward with changed physics: masses, inertias, damping and friction of every element.

    Reward v - control_cost |a|² + alive_bonus, until the hopper falls. Each element has a multiplier of its own.
    """

    robot: ClassVar[Robot] = HOPPER
    num_bodies: ClassVar[int] = 4
    num_geoms: ClassVar[int] = 5

    name = "hopper_rand_params"


@dataclass(frozen=True)
class Walker2dVel(_Planar[VelocityTasks], VelocityFamily):  # pyright: ignore[reportIncompatibleVariableOverride]
    """Run at a velocity v* ~ U[0, 10]; reward -|v - v*| - control_cost |a|² + alive_bonus, until it falls.

    The bonus for standing is most of the return, so look at the metric. The split "ood" has velocities up to a third
    beyond this range.
    """

    alive_bonus: float = 15.0  # reward per step in which the robot has not fallen
    velocity: Range = Range(0.0, 10.0)  # target velocities along x, in m/s

    robot: ClassVar[Robot] = WALKER2D

    name = "walker2d_vel"

    def reward(self, before: State, after: State, action: Tensor, tasks: VelocityTasks, dt: float) -> Tensor:
        error = self.velocity_error(before, after, tasks, dt)
        return (self.alive_bonus * self.stands(after) - error - self.control_cost * squared(action)).float()
