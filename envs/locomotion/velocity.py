"""The task of moving at a velocity, for any robot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from envs.locomotion.ranges import Ood, draw_shares, in_training
from envs.locomotion.robots import RobotFamily
from envs.locomotion.tasks import VelocityTasks
from envs.simulators.state import State
from envs.splits import check_split
from metarl.checks import one_of, positive
from metarl.protocols import Split


@dataclass(frozen=True)
class VelocityFamily(RobotFamily[VelocityTasks]):
    """Base class: a velocity v* along x, uniform up to `max_velocity`; a family adds its robot and its reward.

    The "ood" split has velocities up to a third beyond the training range or, with `ood="interpolation"`, in its middle
    third, which training then excludes; see `envs.locomotion.ranges`.
    """

    max_velocity: float = 3.0  # largest target velocity in training, in m/s
    ood: Ood = "extrapolation"  # position of split "ood": beyond the training range, or its middle third

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "max_velocity")
        one_of(self, "ood", get_args(Ood))

    @property
    def lowest_velocity(self) -> float:
        return 0.0

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> VelocityTasks:
        check_split(self.name, split)
        share = draw_shares((num_tasks,), split, self.ood, generator)
        return VelocityTasks(self.lowest_velocity + (self.max_velocity - self.lowest_velocity) * share)

    def in_training_range(self, tasks: VelocityTasks) -> Tensor:
        """Whether each velocity can occur in training: [N] bool."""
        return in_training(
            (tasks.velocity - self.lowest_velocity) / (self.max_velocity - self.lowest_velocity), self.ood
        )

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("velocity_error",)  # |v - v*|, m/s

    def velocity_error(self, before: State, after: State, tasks: VelocityTasks, dt: float) -> Tensor:
        """|v - v*|: [B] m/s."""
        return (self.velocity(before, after, dt)[:, 0] - tasks.velocity).abs()

    def metrics(self, before: State, after: State, action: Tensor, tasks: VelocityTasks, dt: float) -> Tensor:
        return self.velocity_error(before, after, tasks, dt).float()[:, None]
