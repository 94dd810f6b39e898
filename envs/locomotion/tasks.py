"""Task records common to several robots."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metarl.records import Record


@dataclass(frozen=True)
class VelocityTasks(Record):
    """Target velocities along x."""

    velocity: Tensor  # [N] float32, m/s


@dataclass(frozen=True)
class DirectionTasks(Record):
    """Target directions along x."""

    direction: Tensor  # [N] float32, +1 forward or -1 backward


@dataclass(frozen=True)
class HeadingTasks(Record):
    """Target directions in the plane."""

    direction: Tensor  # [N, 2] float32, unit vectors


@dataclass(frozen=True)
class GoalTasks(Record):
    """Goals in the plane."""

    goal: Tensor  # [N, 2] float32, m
