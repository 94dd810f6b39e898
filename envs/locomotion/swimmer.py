"""The swimmer's task family, swimming at a velocity: Rothfuss et al. 2019, "ProMP: Proximal Meta-Policy Search".

Mechanics and start are those of Gymnasium's Swimmer-v5, dt = 0.04 s, actions in [-1, 1].

Deviation: the published reward is +|v - v*| - 1e-4 |a|², which rewards missing the velocity. Ours has the intended
sign; `published_sign` selects theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

import torch
from torch import Tensor

from envs.locomotion.ranges import Ood, draw_shares, in_training
from envs.locomotion.robots import SWIMMER, Robot, RobotFamily, squared, x_velocity
from envs.locomotion.tasks import VelocityTasks
from envs.simulators.state import State
from envs.splits import check_split
from metarl.checks import not_negative, one_of, positive
from metarl.protocols import Split


@dataclass(frozen=True)
class SwimmerVel(RobotFamily[VelocityTasks]):
    """Swim along x at a velocity v* ~ U[min_velocity, max_velocity]; reward -|v - v*| - control_cost |a|².

    For the split "ood", see `envs.locomotion.ranges`.
    """

    control_cost: float = 1e-4  # weight of the squared norm of the action in the cost
    min_velocity: float = 0.1  # smallest target velocity in training, in m/s
    max_velocity: float = 0.2  # largest target velocity in training, in m/s
    published_sign: bool = False  # whether the reward has the published sign, which rewards missing the velocity
    ood: Ood = "extrapolation"  # position of split "ood": beyond the training range, or its middle third

    robot: ClassVar[Robot] = SWIMMER

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative(self, "min_velocity")
        positive(self, "max_velocity")
        if self.min_velocity >= self.max_velocity:
            raise ValueError(
                f"min_velocity is {self.min_velocity}; must be less than max_velocity, {self.max_velocity}"
            )
        one_of(self, "ood", get_args(Ood))

    name = "swimmer_vel"

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> VelocityTasks:
        check_split(self.name, split)
        share = draw_shares((num_tasks,), split, self.ood, generator)
        return VelocityTasks(self.min_velocity + (self.max_velocity - self.min_velocity) * share)

    def in_training_range(self, tasks: VelocityTasks) -> Tensor:
        return in_training((tasks.velocity - self.min_velocity) / (self.max_velocity - self.min_velocity), self.ood)

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("velocity_error",)  # |v - v*|, m/s

    def reward(self, before: State, after: State, action: Tensor, tasks: VelocityTasks, dt: float) -> Tensor:
        error = (x_velocity(before, after, dt) - tasks.velocity).abs()
        sign = 1.0 if self.published_sign else -1.0
        return (sign * error - self.control_cost * squared(action)).float()

    def metrics(self, before: State, after: State, action: Tensor, tasks: VelocityTasks, dt: float) -> Tensor:
        return (x_velocity(before, after, dt) - tasks.velocity).abs().float()[:, None]
