"""The task of moving at a velocity, for any robot."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from envs.locomotion.robots import RobotFamily
from envs.locomotion.tasks import VelocityTasks
from envs.samplers import Range, check_fields
from envs.simulators.state import State
from envs.splits import check_split
from metarl.protocols import Split


@dataclass(frozen=True)
class VelocityFamily(RobotFamily[VelocityTasks]):
    """Base class: a velocity v* along x; a family adds its robot and its reward.

    The "ood" split has velocities up to a third beyond the training range or, with `ood="interpolation"`, in its middle
    third, which training then excludes; see `envs.samplers`.
    """

    velocity: Range = Range(0.0, 3.0)  # target velocities along x, in m/s

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, Range, "velocity")

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> VelocityTasks:
        check_split(self.name, split)
        return VelocityTasks(self.velocity.sample((num_tasks,), split, generator))

    def in_training_range(self, tasks: VelocityTasks) -> Tensor:
        """Whether each velocity can occur in training: [N] bool."""
        return self.velocity.contains(tasks.velocity)

    @property
    def observed_velocity(self) -> int:
        """The entry of observations that is the velocity along x."""
        return self.robot.num_positions - self.robot.num_hidden

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("velocity_error",)  # |v - v*|, m/s

    def velocity_error(self, before: State, after: State, tasks: VelocityTasks, dt: float) -> Tensor:
        """|v - v*|: [B] m/s."""
        return (self.robot_velocity(before, after, dt)[:, 0] - tasks.velocity).abs()

    def metrics(self, before: State, after: State, action: Tensor, tasks: VelocityTasks, dt: float) -> Tensor:
        return self.velocity_error(before, after, tasks, dt).float()[:, None]
