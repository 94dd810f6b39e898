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


@dataclass(frozen=True)
class PhysicsTasks(Record):
    """Multipliers on elements of the model, named after the fields that they scale: P bodies, J hinges, G geoms.

    A body's inertia is scaled by the multiplier of its mass.
    """

    body_mass: Tensor  # [N, P] float32, of all bodies but the world
    dof_damping: Tensor  # [N, J] float32, of the hinges that motors drive
    geom_friction: Tensor  # [N, G, 3] float32, of the floor and the body's geoms: sliding, torsional, rolling


@dataclass(frozen=True)
class InertiaTasks(Record):
    """The same, with multipliers of the inertias."""

    body_mass: Tensor  # [N, P] float32
    body_inertia: Tensor  # [N, P, 3] float32, about the principal axes
    dof_damping: Tensor  # [N, J] float32
    geom_friction: Tensor  # [N, G, 3] float32
