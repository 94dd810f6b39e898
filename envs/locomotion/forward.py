"""The task of running forward, for any robot; what differs between tasks is its physics.

Random parameters: the benchmarks of Rothfuss et al. 2019 (ProMP) and Rakelly et al. 2019 (PEARL). Each element of the
model has a multiplier of its own, such as 1.5^u with u ~ U(-3, 3). For multipliers of the whole robot, see
`envs.locomotion.dynamics`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from envs.locomotion.ranges import Multiplier
from envs.locomotion.robots import RobotFamily, T, squared
from envs.samplers import all_inside, check_fields
from envs.simulators.state import State
from envs.splits import check_split
from metarl.protocols import Split


@dataclass(frozen=True)
class ForwardFamily(RobotFamily[T]):
    """Base class: run forward; reward v - control_cost |a|²."""

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("velocity",)  # forward, m/s: a bonus for standing can be most of the return

    def reward(self, before: State, after: State, action: Tensor, tasks: T, dt: float) -> Tensor:
        return (self.robot_velocity(before, after, dt)[:, 0] - self.control_cost * squared(action)).float()

    def metrics(self, before: State, after: State, action: Tensor, tasks: T, dt: float) -> Tensor:
        return self.robot_velocity(before, after, dt)[:, :1].float()


@dataclass(frozen=True)
class RandomParameters(ForwardFamily[T]):
    """Base class: every element of mass, damping and friction has a multiplier; a family adds its robot."""

    body_mass: Multiplier = Multiplier(1.5, 3.0)  # multipliers of the bodies' masses
    dof_damping: Multiplier = Multiplier(1.3, 3.0)  # multipliers of the joints' damping
    geom_friction: Multiplier = Multiplier(1.5, 3.0)  # multipliers of the geoms' friction

    tasks_class: ClassVar[type[T]]  # pyright: ignore[reportGeneralTypeIssues], with a field per parameter
    num_bodies: ClassVar[int]  # without the world
    num_geoms: ClassVar[int]  # with the floor

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, Multiplier, *self.samplers)

    @property
    def samplers(self) -> Mapping[str, Multiplier]:
        """The sampler of each parameter, in the order in which they are drawn."""
        return {"body_mass": self.body_mass, "dof_damping": self.dof_damping, "geom_friction": self.geom_friction}

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> T:
        check_split(self.name, split)
        shapes = {
            "body_mass": (self.num_bodies,),
            "body_inertia": (self.num_bodies, 3),
            "dof_damping": (self.robot.num_actions,),
            "geom_friction": (self.num_geoms, 3),
        }
        drawn = self.samplers.items()
        return self.tasks_class(
            **{name: sampler.sample((num_tasks, *shapes[name]), split, generator) for name, sampler in drawn}
        )

    def in_training_range(self, tasks: T) -> Tensor:
        """Whether each task's physics can occur in training: [N] bool."""
        return all_inside(tasks, self.samplers)

    def physics(self, tasks: T, nominal: Callable[[str], Tensor]) -> Mapping[str, Tensor]:
        """The model's own values times the multipliers; an inertia without one follows its body's mass."""
        multipliers = {name: getattr(tasks, name) for name in self.samplers}
        multipliers.setdefault("body_inertia", multipliers["body_mass"][:, :, None])
        return {name: _scaled(nominal(name), multiplier) for name, multiplier in multipliers.items()}


def _scaled(nominal: Tensor, multipliers: Tensor) -> Tensor:
    """Values [elements, ...] times multipliers [B, n, ...] of the last n elements: [B, elements, ...].

    The first have none and keep their values: the world has no mass to scale, and the root's joints no damping.
    """
    ones = multipliers.new_ones(len(multipliers), len(nominal) - multipliers.shape[1], *multipliers.shape[2:])
    return nominal * torch.cat((ones, multipliers), dim=1).double()
