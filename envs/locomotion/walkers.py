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

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, get_args

import torch
from torch import Tensor

from envs.locomotion.ranges import Ood, draw_shares, in_training
from envs.locomotion.robots import HOPPER, WALKER2D, Robot, RobotFamily, T, squared, x_velocity
from envs.locomotion.tasks import VelocityTasks
from envs.locomotion.velocity import VelocityFamily
from envs.simulators.state import State
from envs.splits import check_split
from metarl.checks import at_least, one_of, positive
from metarl.protocols import Split
from metarl.records import Record

BASES = {"body_mass": 1.5, "body_inertia": 1.5, "dof_damping": 1.3, "geom_friction": 1.5}  # raised to u
NUM_ROOT_JOINTS = 3  # without damping


@dataclass(frozen=True)
class ElementTasks(Record):
    """Multipliers on elements of the model's fields, under MuJoCo's names; P bodies, J hinges, G geoms."""

    body_mass: Tensor  # [N, P] float32, of all bodies but the world
    body_inertia: Tensor  # [N, P, 3] float32, about the principal axes
    dof_damping: Tensor  # [N, J] float32, of the hinges that motors drive
    geom_friction: Tensor  # [N, G, 3] float32, of the floor and the body's geoms: sliding, torsional, rolling


@dataclass(frozen=True)
class _Planar(RobotFamily[T]):
    """Base class of robots that stand in the plane of x and z."""

    control_cost: float = 1e-3  # weight of the squared norm of the action in the cost
    alive_bonus: float = 1.0  # reward per step in which the robot has not fallen
    frame_skip: int = 8  # pyright: ignore[reportIncompatibleMethodOverride], a field and no property of the robot

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
class _RandParams(_Planar[ElementTasks]):
    """Run forward with changed physics; reward v - control_cost |a|² + alive_bonus, until the robot falls.

    Every element of mass, inertia and friction is multiplied by 1.5^u and of damping by 1.3^u, each with its own
    u ~ U(-log_scale_limit, log_scale_limit). With `inertia_follows_mass`, a body's inertia has its mass's multiplier.
    For u in the split "ood", see `envs.locomotion.ranges`.
    """

    log_scale_limit: float = 3.0  # largest exponent of the multipliers, in absolute value
    inertia_follows_mass: bool = False  # whether a body's inertia has the multiplier of its mass
    ood: Ood = "extrapolation"  # position of split "ood": beyond the training range, or its middle third

    num_bodies: ClassVar[int]
    num_geoms: ClassVar[int]

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "log_scale_limit")
        one_of(self, "ood", get_args(Ood))

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> ElementTasks:
        check_split(self.name, split)

        def multiplier(field: str, *shape: int) -> Tensor:
            share = draw_shares((num_tasks, *shape), split, self.ood, generator, two_ended=True)
            return BASES[field] ** (self.log_scale_limit * (2 * share - 1))

        mass = multiplier("body_mass", self.num_bodies)
        inertia = multiplier("body_inertia", self.num_bodies, 3)
        return ElementTasks(
            body_mass=mass,
            body_inertia=mass[:, :, None].expand_as(inertia).clone() if self.inertia_follows_mass else inertia,
            dof_damping=multiplier("dof_damping", self.robot.num_actions),
            geom_friction=multiplier("geom_friction", self.num_geoms, 3),
        )

    def in_training_range(self, tasks: ElementTasks) -> Tensor:
        inside = torch.ones(len(tasks), dtype=torch.bool, device=tasks.body_mass.device)
        for field, base in BASES.items():
            exponent = getattr(tasks, field).flatten(1).log() / math.log(base)
            inside &= in_training((exponent / self.log_scale_limit + 1) / 2, self.ood).all(dim=1)
        return inside

    def physics(self, tasks: ElementTasks, nominal: Callable[[str], Tensor]) -> Mapping[str, Tensor]:
        """The multipliers on the body's own values; the world has no mass and the root joints no damping to scale."""
        pad = torch.nn.functional.pad
        return {
            "body_mass": nominal("body_mass") * pad(tasks.body_mass.double(), (1, 0), value=1.0),
            "body_inertia": nominal("body_inertia") * pad(tasks.body_inertia.double(), (0, 0, 1, 0), value=1.0),
            "dof_damping": nominal("dof_damping") * pad(tasks.dof_damping.double(), (NUM_ROOT_JOINTS, 0), value=1.0),
            "geom_friction": nominal("geom_friction") * tasks.geom_friction.double(),
        }

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("velocity",)  # forward, m/s: the bonus for standing is most of the return

    def reward(self, before: State, after: State, action: Tensor, tasks: ElementTasks, dt: float) -> Tensor:
        gain = x_velocity(before, after, dt) + self.alive_bonus * self.stands(after)
        return (gain - self.control_cost * squared(action)).float()

    def metrics(self, before: State, after: State, action: Tensor, tasks: ElementTasks, dt: float) -> Tensor:
        return x_velocity(before, after, dt).float()[:, None]


@dataclass(frozen=True)
class Walker2dRandParams(_RandParams):
    """Run forward on two legs with changed physics: masses, inertias, damping and friction of every element.

    Reward v - control_cost |a|² + alive_bonus, until the walker falls; for the tasks see `_RandParams`.
    """

    robot: ClassVar[Robot] = WALKER2D
    num_bodies: ClassVar[int] = 7
    num_geoms: ClassVar[int] = 8

    name = "walker2d_rand_params"


@dataclass(frozen=True)
class HopperRandParams(_RandParams):
    """Hop forward with changed physics: masses, inertias, damping and friction of every element.

    Reward v - control_cost |a|² + alive_bonus, until the hopper falls; for the tasks see `_RandParams`.
    """

    robot: ClassVar[Robot] = HOPPER
    num_bodies: ClassVar[int] = 4
    num_geoms: ClassVar[int] = 5

    name = "hopper_rand_params"


@dataclass(frozen=True)
class Walker2dVel(_Planar[VelocityTasks], VelocityFamily):  # pyright: ignore[reportIncompatibleVariableOverride]
    """Run at a velocity v* ~ U[0, max_velocity]; reward -|v - v*| - control_cost |a|² + alive_bonus, until it falls.

    The bonus for standing is most of the return, so look at the metric. For the split "ood", see `VelocityFamily`.
    """

    alive_bonus: float = 15.0  # reward per step in which the robot has not fallen
    max_velocity: float = 10.0  # largest target velocity in training, in m/s

    robot: ClassVar[Robot] = WALKER2D

    name = "walker2d_vel"

    def reward(self, before: State, after: State, action: Tensor, tasks: VelocityTasks, dt: float) -> Tensor:
        error = self.velocity_error(before, after, tasks, dt)
        return (self.alive_bonus * self.stands(after) - error - self.control_cost * squared(action)).float()
