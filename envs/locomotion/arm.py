"""An arm that reaches for a target with links of any mass, which bend its servos.

Its servos are those of simple arms, which take commands and report nothing. They give way under load, so the tip hangs
below where the commands would put it, by an angle that the masses decide. An agent knows the target and what it has
commanded; from the reward it learns how far away the tip is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from envs.locomotion.actions import AroundPose
from envs.locomotion.custom_robot import Measure, MujocoFamily, Observe
from envs.samplers import LogUniform, Uniform
from envs.simulators.batched import BatchedPhysics

BODY = Path(__file__).parent / "bodies" / "arm.xml"
SHOULDER = 0.3  # height of the shoulder, m
AROUND_HOME = AroundPose("home", 1.5)


def target(task: Any) -> Tensor:
    """The position to reach, [B, 3] m: a distance from the shoulder in a direction."""
    across = task.distance * task.elevation.cos()
    height = SHOULDER + task.distance * task.elevation.sin()
    return torch.stack([across * task.azimuth.cos(), across * task.azimuth.sin(), height], dim=1)


def observe(physics: BatchedPhysics, task: Any) -> Tensor:
    """The servos' last commands and the target, [B, 8]."""
    return torch.cat([physics.ctrl, target(task)], dim=1)


def privileged(physics: BatchedPhysics, task: Any) -> Tensor:
    """What only a critic sees: the joints, the tip's way to the target and the links' masses as logarithms, [B, 16]."""
    return torch.cat([physics.qpos, physics.qvel, target(task) - physics.site("tip"), task.body_mass.log()], dim=1)


def tip_distance(physics: BatchedPhysics, action: Tensor, task: Any) -> Tensor:
    """Distance of the tip from the target, m."""
    return (target(task) - physics.site("tip")).norm(dim=1)


def on_target(physics: BatchedPhysics, action: Tensor, task: Any) -> Tensor:
    """One at the target, .61 at 3 cm from it, and almost zero beyond 9 cm."""
    return (-0.5 * (tip_distance(physics, action, task) / 0.03).square()).exp()


def jerk(physics: BatchedPhysics, action: Tensor, task: Any) -> Tensor:
    """Mean square of the change of the servos' commands, rad²."""
    return (physics.ctrl - physics.before.ctrl).square().mean(1)


def rewards() -> dict[str, Any]:
    """The reward's terms."""
    return {"distance": (-1.0, tip_distance), "on_target": (1.0, on_target), "jerk": (-0.1, jerk)}


def parameters() -> dict[str, Any]:
    """What differs between tasks: where the target is, and the masses of the links."""
    return {
        "distance": Uniform(0.35, 0.55),  # m
        "azimuth": Uniform(-1.2, 1.2),  # rad
        "elevation": Uniform(-0.4, 0.8),  # rad
        "body_mass": LogUniform(1 / 2, 2, bodies=["upper_arm", "lower_forearm", "hand"]),
    }


@dataclass(frozen=True)
class ArmReach(MujocoFamily):
    """Reach for a target with links of unknown masses."""

    mjcf: str | Path = BODY  # path of the robot's MJCF file
    observe: Observe = observe  # function (physics, task) of what the agent knows
    reward: Any = field(default_factory=rewards)  # terms of the reward by name, with their weights
    tasks: Mapping[str, Any] = field(default_factory=parameters)  # samplers of what differs between tasks
    horizon: int = 50  # number of steps per episode
    # functions that measure more, by name
    metrics: Mapping[str, Measure] = field(default_factory=lambda: {"tip_distance": tip_distance})
    privileged: Observe | None = privileged  # function (physics, task) of what critics may see
    goal: Callable[[Any], Tensor] | None = target  # function (task) that returns a ball's position in videos
    frame_skip: int = 8  # simulation steps per environment step
    start: Any = "home"  # keyframe that episodes start in
    start_noise: float = 0.05  # half-width of the uniform noise on the initial positions and velocities
    act: Any = AROUND_HOME  # function that makes the servos' commands of actions
    name: str = "arm_reach"  # name of the family
