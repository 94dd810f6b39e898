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
from envs.samplers import Range
from envs.simulators.state import State


@dataclass(frozen=True)
class SwimmerVel(VelocityFamily):
    """Swim along x at a velocity v* ~ U[0.1, 0.2]; reward -|v - v*| - control_cost |a|².

    The split "ood" has velocities up to a third beyond this range.
    """

    control_cost: float = 1e-4  # weight of the squared norm of the action in the cost
    velocity: Range = Range(0.1, 0.2)  # target velocities along x, in m/s
    published_sign: bool = False  # whether the reward has the published sign, which rewards missing the velocity

    robot: ClassVar[Robot] = SWIMMER

    name = "swimmer_vel"

    def reward(self, before: State, after: State, action: Tensor, tasks: VelocityTasks, dt: float) -> Tensor:
        sign = 1.0 if self.published_sign else -1.0
        return (sign * self.velocity_error(before, after, tasks, dt) - self.control_cost * squared(action)).float()
