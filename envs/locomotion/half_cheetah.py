"""The half cheetah's task families: run at a velocity, in a direction, or with changed physics.

Velocity and direction: Finn et al. 2017, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks". Changed
physics: the random-parameter benchmarks of Rothfuss et al. 2019 (ProMP) and Rakelly et al. 2019 (PEARL), transferred
from Hopper and Walker2d to this body.

All families use Gymnasium's HalfCheetah-v5 mechanics, its 17 observations (positions without x, then velocities) and
dt = 0.05 s; v is (x_after - x_before) / dt, and actions are torques in [-1, 1].

Deviations and choices, where published code differs:
1. The control cost is the meta-RL papers' 0.05 |a|², not Gymnasium's 0.1.
2. Observations exclude the torso's world position, which some implementations include and which contains x.
3. Velocities are U[0, 3] (ProMP, PEARL, VariBAD); `velocity=Range(0, 2)` gives MAML's. Episodes last 200 steps, a trial
   two.
4. With changed physics, a body's inertia scales with its mass; published code samples it independently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from gymnasium import spaces
from torch import Tensor

from envs.locomotion.forward import RandomParameters
from envs.locomotion.ranges import Multiplier
from envs.locomotion.robots import HALF_CHEETAH, Robot, RobotFamily, T, squared, x_velocity
from envs.locomotion.tasks import DirectionTasks, PhysicsTasks, VelocityTasks
from envs.locomotion.velocity import VelocityFamily
from envs.simulators.state import State
from envs.splits import check_split
from metarl.checks import at_least
from metarl.protocols import Split

BODY = HALF_CHEETAH.body


@dataclass(frozen=True)
class HalfCheetah(RobotFamily[T]):
    """Base class of the three families."""

    control_cost: float = 0.05  # weight of the squared norm of the action in the cost

    robot: ClassVar[Robot] = HALF_CHEETAH


@dataclass(frozen=True)
class HalfCheetahVel(HalfCheetah[VelocityTasks], VelocityFamily):
    """Run at a velocity v* ~ U[0, 3]; reward -|v - v*| - control_cost |a|².

    The split "ood" has velocities up to a third beyond this range.
    """

    name = "half_cheetah_vel"

    def reward(self, before: State, after: State, action: Tensor, tasks: VelocityTasks, dt: float) -> Tensor:
        return -(self.velocity_error(before, after, tasks, dt) + self.control_cost * squared(action)).float()


@dataclass(frozen=True)
class HalfCheetahDir(HalfCheetah[DirectionTasks]):
    """Run forward or backward; reward direction * v - control_cost |a|².

    With `sparse_distance`, direction * v is rewarded only where a step ends at least that far from x = 0, and x
    is the last number of the observation: Zintgraf et al. 2021, "HyperX", at 5 m. Lying still costs nothing there.

    There are only these two tasks, so "test" equals "train" (as in every paper), and "ood" is not declared. With
    `balanced`, half of the sampled tasks are forward, in random order (an odd one is random); otherwise each is sampled
    independently.
    """

    balanced: bool = True  # whether half of the sampled tasks are forward, rather than each at random
    sparse_distance: float = 0.0  # distance from x = 0 beyond which the velocity is rewarded, in metres; 0: everywhere

    name = "half_cheetah_dir"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "sparse_distance")

    @property
    def observation_space(self) -> spaces.Box:
        size = super().observation_space.shape[0] + (self.sparse_distance > 0)
        return spaces.Box(-float("inf"), float("inf"), (size,))

    @property
    def observation_names(self) -> list[str] | None:
        names = super().observation_names
        return names if names is None or not self.sparse_distance else [*names, "x"]

    def observation(self, state: State, tasks: DirectionTasks) -> Tensor:
        obs = super().observation(state, tasks)
        return torch.cat((obs, state.qpos[:, :1].float()), dim=1) if self.sparse_distance else obs

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
        if self.sparse_distance:
            along = torch.where(after.qpos[:, 0].abs() < self.sparse_distance, 0.0, along)
        return (along - self.control_cost * squared(action)).float()

    def metrics(self, before: State, after: State, action: Tensor, tasks: DirectionTasks, dt: float) -> Tensor:
        return (tasks.direction * x_velocity(before, after, dt)).float()[:, None]


@dataclass(frozen=True, repr=False)
class TouchingMultiplier(Multiplier):
    """Multipliers whose values beyond the range begin at its ends, without the margin of `Multiplier`'s.

    So this family has drawn them from the first; another formula would be another split "ood".
    """

    def _signed(self, uniform: Tensor, split: Split) -> Tensor:
        if split != "ood" or self.ood != "extrapolation":
            return super()._signed(uniform, split)
        signed = 2 * uniform - 1
        return torch.where(signed < 0, -1.0, 1.0) + signed / 3


@dataclass(frozen=True)
class HalfCheetahRandParams(HalfCheetah[PhysicsTasks], RandomParameters[PhysicsTasks]):
    """Run forward with changed physics; reward v - control_cost |a|².

    Every element of mass and friction is multiplied by 1.5^u and of damping by 1.3^u, each with its own u ~ U(-3, 3).
    In the "ood" split |u| lies up to a third beyond that limit.
    """

    body_mass: TouchingMultiplier = TouchingMultiplier(1.5, 3.0)  # multipliers of the bodies' masses, inertia follows
    dof_damping: TouchingMultiplier = TouchingMultiplier(1.3, 3.0)  # multipliers of the joints' damping
    geom_friction: TouchingMultiplier = TouchingMultiplier(1.5, 3.0)  # multipliers of the geoms' friction

    tasks_class: ClassVar[type[PhysicsTasks]] = PhysicsTasks
    num_bodies: ClassVar[int] = 7
    num_geoms: ClassVar[int] = 9

    name = "half_cheetah_rand_params"
