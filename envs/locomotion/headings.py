"""The task of moving in a direction in the plane, for any robot that turns.

1. "forward_backward": ±x in equal numbers. Out of distribution: directions at least 45° from both.
2. "axes": ±x and ±y. Out of distribution: the four diagonals (Lee and Chung 2021, LDM).
3. "circle": all angles. "ood" is declared only with `hold_out_diagonals`: training then excludes angles within 15° of
   the four diagonals, and "ood" consists of these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from envs.locomotion.robots import RobotFamily, cosine
from envs.locomotion.tasks import HeadingTasks
from envs.simulators.state import State
from envs.splits import check_split
from metarl.checks import one_of
from metarl.protocols import Split

Directions = Literal["forward_backward", "axes", "circle"]

_SECTOR = math.radians(15)  # held-out angle on each side of a diagonal
_QUARTER = math.pi / 2


@dataclass(frozen=True)
class HeadingFamily(RobotFamily[HeadingTasks]):
    """Base class: a direction d in the plane; a family adds its robot and its reward."""

    directions: Directions = "forward_backward"  # set of directions: forward and backward, four axes, or a circle
    hold_out_diagonals: bool = False  # whether training excludes the diagonals, for split "ood"; for "circle" only

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, "directions", get_args(Directions))
        if self.hold_out_diagonals and self.directions != "circle":
            raise ValueError("hold_out_diagonals is True; must be False unless directions is 'circle'")

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> HeadingTasks:
        """Directions of a split.

        Raises:
            ValueError: for an unknown split, or "ood" if it is not declared.
        """
        has_ood = self.directions != "circle" or self.hold_out_diagonals
        check_split(self.name, split, has_ood=has_ood, reason="" if has_ood else "hold_out_diagonals=True adds ood")
        device = generator.device
        uniform = torch.rand(num_tasks, generator=generator, device=device)
        quarter = torch.randint(4, (num_tasks,), generator=generator, device=device)
        if self.directions == "forward_backward":
            if split == "ood":
                side = torch.where(quarter < 2, _QUARTER, -_QUARTER)
                return _headings(side + (uniform - 0.5) * (_QUARTER - 1e-3))
            coin = (torch.randperm(num_tasks, generator=generator, device=device) + quarter[:1]) % 2
            return HeadingTasks(torch.stack((2.0 * coin - 1.0, torch.zeros_like(uniform)), dim=1))
        if self.directions == "axes":
            return _headings((quarter + (0.5 if split == "ood" else 0.0)) * _QUARTER)
        if not self.hold_out_diagonals:
            return _headings(2 * math.pi * uniform)
        centred = 2 * uniform - 1
        if split == "ood":
            return _headings(quarter * _QUARTER + _QUARTER / 2 + centred * (_SECTOR - 1e-3))
        return _headings(quarter * _QUARTER + centred * (_QUARTER / 2 - _SECTOR))

    def in_training_range(self, tasks: HeadingTasks) -> Tensor:
        """Whether each direction can occur in training: [N] bool."""
        x, y = tasks.direction.unbind(dim=1)
        if self.directions == "forward_backward":
            return y.abs() < 1e-6
        if self.directions == "axes":
            return torch.minimum(x.abs(), y.abs()) < 1e-6
        angle = torch.atan2(y, x) % _QUARTER
        to_diagonal = (angle - _QUARTER / 2).abs()
        return to_diagonal >= _SECTOR - 1e-5 if self.hold_out_diagonals else torch.ones_like(x, dtype=torch.bool)

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("velocity_along", "heading")  # m/s in the task's direction; cosine between it and the motion

    def velocity_along(self, before: State, after: State, tasks: HeadingTasks, dt: float) -> Tensor:
        """d.v: [B] m/s."""
        return (self.robot_velocity(before, after, dt) * tasks.direction).sum(dim=1)

    def metrics(self, before: State, after: State, action: Tensor, tasks: HeadingTasks, dt: float) -> Tensor:
        velocity = self.robot_velocity(before, after, dt)
        along = (velocity * tasks.direction).sum(dim=1)
        return torch.stack((along, cosine(velocity, tasks.direction)), dim=1).float()


def _headings(angle: Tensor) -> HeadingTasks:
    return HeadingTasks(torch.stack((angle.cos(), angle.sin()), dim=1))
