"""A quadruped that walks at a commanded speed, whatever it carries, on any floor, with motors of any strength.

The command is observed; payload, friction and strength are not. Nor is the robot's own velocity, which no sensor of
such robots measures: an agent learns from the reward, or from how its legs swing, how fast it walks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from envs.locomotion.actions import AroundPose
from envs.locomotion.custom_robot import Measure, MujocoFamily, Observe
from envs.samplers import Uniform
from envs.simulators.batched import BatchedPhysics

BODY = Path(__file__).parent / "bodies" / "quadruped.xml"
FEET = ("front_left_foot", "front_right_foot", "rear_left_foot", "rear_right_foot")
AROUND_HOME = AroundPose("home", 0.5)


def observe(physics: BatchedPhysics, task: Any) -> Tensor:
    """What the robot measures, and the command, [B, 31]."""
    pose = physics.controls("home")
    return torch.cat(
        [
            physics.projected_gravity("trunk"),
            physics.angular_velocity("trunk"),
            physics.qpos[:, 7:] - pose,
            physics.qvel[:, 6:],
            physics.ctrl - pose,  # the last command of the servos
            task.velocity[:, None],
        ],
        dim=1,
    )


def privileged(physics: BatchedPhysics, task: Any) -> Tensor:
    """What only a critic sees: the trunk's velocity and height, the feet on the ground, and the task, [B, 11]."""
    contacts = torch.stack([physics.touches(foot) for foot in FEET], dim=1)
    hidden = torch.stack([task.body_mass, task.geom_friction, task.actuator_kp], dim=1)
    moving = physics.linear_velocity("trunk", "heading")
    return torch.cat([moving, physics.qpos[:, 2:3], contacts, hidden], dim=1)


def velocity(physics: BatchedPhysics) -> Tensor:
    """The trunk's mean velocity over a step in its heading's axes, forward and to the left: [B, 2] m/s."""
    moved = (physics.qpos[:, :3] - physics.before.qpos[:, :3]) / physics.dt
    return physics.in_frame(moved, "trunk", "heading")[:, :2]


def at_speed(physics: BatchedPhysics, action: Tensor, task: Any) -> Tensor:
    """One at the commanded speed, and the less the farther from it."""
    return (-(velocity(physics)[:, 0] - task.velocity).abs() / 0.25).exp()


def sideways(physics: BatchedPhysics, action: Tensor, task: Any) -> Tensor:
    """Speed to either side, m/s."""
    return velocity(physics)[:, 1].abs()


def turning(physics: BatchedPhysics, action: Tensor, task: Any) -> Tensor:
    """Rate of turning about the vertical, rad/s."""
    return physics.qvel[:, 5].abs()


def tilt(physics: BatchedPhysics, action: Tensor, task: Any) -> Tensor:
    """Square of the sine of the angle between the trunk and the horizontal."""
    return physics.projected_gravity("trunk")[:, :2].square().sum(1)


def power(physics: BatchedPhysics, action: Tensor, task: Any) -> Tensor:
    """Absolute mechanical power of the motors, W."""
    return (physics.actuator_force * physics.qvel[:, 6:]).abs().sum(1)


def jerk(physics: BatchedPhysics, action: Tensor, task: Any) -> Tensor:
    """Mean square of the change of the servos' commands, rad²."""
    return (physics.ctrl - physics.before.ctrl).square().mean(1)


def fallen(physics: BatchedPhysics, task: Any) -> Tensor:
    """Whether the trunk is near the floor."""
    return physics.qpos[:, 2] < 0.15


def tilted(physics: BatchedPhysics, task: Any) -> Tensor:
    """Whether the trunk has tilted by more than 60°."""
    return physics.projected_gravity("trunk")[:, 2] > -0.5


def speed_error(physics: BatchedPhysics, action: Tensor, task: Any) -> Tensor:
    """Distance of the forward speed from the commanded one, m/s."""
    return (velocity(physics)[:, 0] - task.velocity).abs()


def rewards() -> dict[str, Any]:
    """The reward's terms: of one for each step at the commanded speed, and the costs of how it is reached."""
    return {
        "speed": (1.0, at_speed),
        "sideways": (-0.3, sideways),
        "turning": (-0.1, turning),
        "tilt": (-1.0, tilt),
        "power": (-0.001, power),
        "jerk": (-0.1, jerk),
    }


def parameters() -> dict[str, Any]:
    """What differs between tasks."""
    return {
        "velocity": Uniform(0.2, 0.8),  # m/s
        "body_mass": Uniform(0.1, 5.0, bodies=["payload"], scale=False),  # kg
        "geom_friction": Uniform(0.3, 1.2, geoms=["floor"]),
        "actuator_kp": Uniform(0.65, 1.1, shared=True),
    }


@dataclass(frozen=True)
class QuadrupedVel(MujocoFamily):
    """Walk at a commanded speed, with an unknown payload, floor and strength of the motors."""

    mjcf: str | Path = BODY  # path of the robot's MJCF file
    observe: Observe = observe  # function (physics, task) of what the robot measures
    reward: Any = field(default_factory=rewards)  # terms of the reward by name, with their weights
    tasks: Mapping[str, Any] = field(default_factory=parameters)  # samplers of what differs between tasks
    horizon: int = 100  # number of steps per episode
    terminated: Any = field(default_factory=lambda: {"fall": fallen, "tilt": tilted})  # reasons that end an episode
    privileged: Observe | None = privileged  # function (physics, task) of what critics may see
    # functions that measure more, by name
    metrics: Mapping[str, Measure] = field(default_factory=lambda: {"speed_error": speed_error})
    frame_skip: int = 6  # simulation steps per environment step
    start: Any = "home"  # keyframe that episodes start in
    start_noise: float = 0.03  # half-width of the uniform noise on the initial positions and velocities
    act: Any = AROUND_HOME  # function that makes the servos' commands of actions
    name: str = "quadruped_vel"  # name of the family
