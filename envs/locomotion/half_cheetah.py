"""The half cheetah's task families: run at a velocity, in a direction, or with changed physics.

Velocity and direction: Finn et al. 2017, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks". Changed
physics: the random-parameter benchmarks of Rothfuss et al. 2019 (ProMP) and Rakelly et al. 2019 (PEARL), transferred
from Hopper and Walker2d to this body.

All families use Gymnasium's HalfCheetah-v5 mechanics, its 17 observations (positions without x, then velocities) and
dt = 0.05 s; v is (x_after - x_before) / dt, and actions are torques in [-1, 1].

Deviations and choices, where published code differs:
1. The control cost is the meta-RL papers' 0.05 |a|², not Gymnasium's 0.1.
2. Observations exclude the torso's world position, which some implementations include and which contains x.
3. Velocities are U[0, 3] (ProMP, PEARL, VariBAD); `max_velocity=2` gives MAML's. Episodes last 200 steps, a trial two.
4. With changed physics, a body's inertia scales with its mass; published code samples it independently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from envs.locomotion.robots import HALF_CHEETAH, Robot, RobotFamily, T, squared, x_velocity
from envs.locomotion.tasks import DirectionTasks, VelocityTasks
from envs.locomotion.velocity import VelocityFamily
from envs.simulators.state import State
from envs.splits import check_split
from metarl.checks import positive
from metarl.protocols import Split
from metarl.records import Record

BODY = HALF_CHEETAH.body
NUM_BODIES, NUM_JOINTS, NUM_GEOMS = 7, 6, 9  # without the world and the root joints; geoms with the floor
MASS_BASE, DAMPING_BASE, FRICTION_BASE = 1.5, 1.3, 1.5


@dataclass(frozen=True)
class PhysicsTasks(Record):
    """Multipliers on the body's own physics, named after the fields of MuJoCo's model that they scale."""

    body_mass: Tensor  # [N, 7] float32, of the torso and the six leg segments; inertia follows
    dof_damping: Tensor  # [N, 6] float32, of the leg joints
    geom_friction: Tensor  # [N, 9, 3] float32, of the floor and the body's geoms: sliding, torsional, rolling


@dataclass(frozen=True)
class HalfCheetah(RobotFamily[T]):
    """Base class of the three families."""

    control_cost: float = 0.05  # weight of the squared norm of the action in the cost

    robot: ClassVar[Robot] = HALF_CHEETAH


@dataclass(frozen=True)
class HalfCheetahVel(HalfCheetah[VelocityTasks], VelocityFamily):
    """Run at a velocity v* ~ U[0, max_velocity]; reward -|v - v*| - control_cost |a|².

    For the split "ood", see `VelocityFamily`.
    """

    name = "half_cheetah_vel"

    def reward(self, before: State, after: State, action: Tensor, tasks: VelocityTasks, dt: float) -> Tensor:
        return -(self.velocity_error(before, after, tasks, dt) + self.control_cost * squared(action)).float()


@dataclass(frozen=True)
class HalfCheetahDir(HalfCheetah[DirectionTasks]):
    """Run forward or backward; reward direction * v - control_cost |a|².

    There are only these two tasks, so "test" equals "train" (as in every paper), and "ood" is not declared. With
    `balanced`, half of the sampled tasks are forward, in random order (an odd one is random); otherwise each is sampled
    independently.
    """

    balanced: bool = True  # whether half of the sampled tasks are forward, rather than each at random

    name = "half_cheetah_dir"

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> DirectionTasks:
        check_split(self.name, split, has_ood=False, reason="it has no other directions")
        device = generator.device
        coin = torch.randint(2, (num_tasks,), generator=generator, device=device)
        if self.balanced:
            order = torch.randperm(num_tasks, generator=generator, device=device)
            coin = (order + coin[:1]) % 2
        return DirectionTasks(2.0 * coin - 1.0)

    def in_training_range(self, tasks: DirectionTasks) -> Tensor:
        """Whether each direction can occur in training: [N] bool."""
        return tasks.direction.abs() == 1

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("velocity_along",)  # in the task's direction, m/s

    def reward(self, before: State, after: State, action: Tensor, tasks: DirectionTasks, dt: float) -> Tensor:
        along = tasks.direction * x_velocity(before, after, dt)
        return (along - self.control_cost * squared(action)).float()

    def metrics(self, before: State, after: State, action: Tensor, tasks: DirectionTasks, dt: float) -> Tensor:
        return (tasks.direction * x_velocity(before, after, dt)).float()[:, None]


@dataclass(frozen=True)
class HalfCheetahRandParams(HalfCheetah[PhysicsTasks]):
    """Run forward with changed physics; reward v - control_cost |a|².

    Every element of mass and friction is multiplied by 1.5^u and of damping by 1.3^u, each with its own
    u ~ U(-log_scale_limit, log_scale_limit). In the "ood" split |u| lies up to a third beyond that limit.
    """

    log_scale_limit: float = 3.0  # largest exponent of the multipliers, in absolute value

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "log_scale_limit")

    name = "half_cheetah_rand_params"

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> PhysicsTasks:
        check_split(self.name, split)

        def multiplier(base: float, *shape: int) -> Tensor:
            uniform = 2 * torch.rand(num_tasks, *shape, generator=generator, device=generator.device) - 1
            if split == "ood":
                uniform = torch.where(uniform < 0, -1.0, 1.0) + uniform / 3
            return base ** (self.log_scale_limit * uniform)

        return PhysicsTasks(
            body_mass=multiplier(MASS_BASE, NUM_BODIES),
            dof_damping=multiplier(DAMPING_BASE, NUM_JOINTS),
            geom_friction=multiplier(FRICTION_BASE, NUM_GEOMS, 3),
        )

    def in_training_range(self, tasks: PhysicsTasks) -> Tensor:
        """Whether each task's physics can occur in training: [N] bool."""
        inside = torch.ones(len(tasks), dtype=torch.bool, device=tasks.body_mass.device)
        for multiplier, base in (
            (tasks.body_mass, MASS_BASE),
            (tasks.dof_damping, DAMPING_BASE),
            (tasks.geom_friction, FRICTION_BASE),
        ):
            exponent = multiplier.flatten(1).log() / math.log(base)
            inside &= (exponent.abs() <= self.log_scale_limit + 1e-5).all(dim=1)  # float32 rounds the multipliers
        return inside

    def physics(self, tasks: PhysicsTasks, nominal: Callable[[str], Tensor]) -> Mapping[str, Tensor]:
        """The multipliers on the body's own values; the world has no mass and the root joints no damping to scale."""
        mass, inertia, damping = nominal("body_mass"), nominal("body_inertia"), nominal("dof_damping")
        mass_scale = torch.nn.functional.pad(tasks.body_mass.double(), (1, 0), value=1.0)  # [B, 8]
        damping_scale = torch.nn.functional.pad(tasks.dof_damping.double(), (3, 0), value=1.0)  # [B, 9]
        return {
            "body_mass": mass * mass_scale,
            "body_inertia": inertia * mass_scale[:, :, None],
            "dof_damping": damping * damping_scale,
            "geom_friction": nominal("geom_friction") * tasks.geom_friction.double(),
        }

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("velocity",)  # forward, m/s

    def reward(self, before: State, after: State, action: Tensor, tasks: PhysicsTasks, dt: float) -> Tensor:
        return (x_velocity(before, after, dt) - self.control_cost * squared(action)).float()

    def metrics(self, before: State, after: State, action: Tensor, tasks: PhysicsTasks, dt: float) -> Tensor:
        return x_velocity(before, after, dt).float()[:, None]
