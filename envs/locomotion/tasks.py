"""What locomotion tasks ask for: records that several robots share."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metarl.records import Record


@dataclass(frozen=True)
class VelocityTasks(Record):
    """Velocities to move at along x."""

    velocity: Tensor  # [N] float32, m/s


@dataclass(frozen=True)
class DirectionTasks(Record):
    """Directions to move in along x."""

    direction: Tensor  # [N] float32, +1 forward or -1 backward


@dataclass(frozen=True)
class HeadingTasks(Record):
    """Directions to move in, in the plane."""

    direction: Tensor  # [N, 2] float32, unit vectors


@dataclass(frozen=True)
class GoalTasks(Record):
    """Places to go to, in the plane."""

    goal: Tensor  # [N, 2] float32, m
