"""The swimmer's task family, swimming at a velocity: Rothfuss et al. 2019, "ProMP: Proximal Meta-Policy Search".

Mechanics and start are those of Gymnasium's Swimmer-v5, dt = 0.04 s, actions in [-1, 1].

Deviation: the published reward is +|v - v*| - 1e-4 |a|², which rewards missing the velocity. Ours has the intended
sign; `published_sign` selects theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from envs.locomotion.robots import SWIMMER, Robot, squared
from envs.locomotion.tasks import VelocityTasks
from envs.locomotion.velocity import VelocityFamily
from envs.simulators.state import State
from metarl.checks import not_negative


@dataclass(frozen=True)
class SwimmerVel(VelocityFamily):
    """Swim along x at a velocity v* ~ U[min_velocity, max_velocity]; reward -|v - v*| - control_cost |a|².

    For the split "ood", see `VelocityFamily`.
    """

    control_cost: float = 1e-4  # weight of the squared norm of the action in the cost
    min_velocity: float = 0.1  # smallest target velocity in training, in m/s
    max_velocity: float = 0.2  # largest target velocity in training, in m/s
    published_sign: bool = False  # whether the reward has the published sign, which rewards missing the velocity

    robot: ClassVar[Robot] = SWIMMER

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative(self, "min_velocity")
        if self.min_velocity >= self.max_velocity:
            raise ValueError(
                f"min_velocity is {self.min_velocity}; must be less than max_velocity, {self.max_velocity}"
            )

    name = "swimmer_vel"

    @property
    def lowest_velocity(self) -> float:
        return self.min_velocity

    def reward(self, before: State, after: State, action: Tensor, tasks: VelocityTasks, dt: float) -> Tensor:
        sign = 1.0 if self.published_sign else -1.0
        return (sign * self.velocity_error(before, after, tasks, dt) - self.control_cost * squared(action)).float()
