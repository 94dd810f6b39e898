"""A first recipe for a robot: its parts as comments, and functions that run, to be replaced by the user's own."""

# MuJoCo's compiled module has no type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mujoco

from envs.simulators.actuators import Servo
from envs.simulators.robot_fields import one_coordinate
from envs.simulators.robot_model import robot_model
from envs.simulators.urdf import is_urdf
from metarl.errors import UserError

_STEP = 0.04  # duration of an environment step that a recipe begins with, about, s

_TEMPLATE = '''"""RL2 on {title}, a custom robot."""

# The parts of {file}, by the names that `physics` and `tasks` take:
#
{parts}

from pathlib import Path

import torch

from agents.rl2 import RL2Config
from envs.locomotion.custom_robot import MujocoFamily
from envs.samplers import LogUniform, Uniform
{imports}from experiments import Experiment
from metarl.trainer import TrainConfig


def observe(physics, task):  # all rows at once: [B, O]; the task's own parameters stay hidden
    return torch.cat([{observed}], dim=1)


def near(physics, action, task):  # [B]
    return -({asked} - task.target).abs()


def effort(physics, action, task):  # [B]
    return action.square().sum(dim=1)


experiment = Experiment(
    family=MujocoFamily(
        mjcf={mjcf},
        observe=observe,
        reward={{"near": (1.0, near), "effort": (-0.01, effort)}},
        tasks={{"target": Uniform({low}, {high}), "body_mass": LogUniform(1 / 2, 2)}},
{settings}        horizon=200,
        frame_skip={frame_skip},
        start_noise=0.01,
        name="{name}",
    ),
    agent=RL2Config(hidden_size=64, gamma=0.97, entropy_coefficient=0.0),
    train=TrainConfig(num_iterations=100, num_tasks=64, eval_every=25),
)
'''


def robot_recipe(path: Path, recipe: Path) -> str:
    """The text of a recipe at `recipe` for the robot in an MJCF or URDF file.

    A robot whose first joint is driven is asked for a position of it, any other for a velocity along x. A file without
    actuators, such as URDF, is given position servos on all joints.

    Raises:
        UserError: when MuJoCo refuses the file, or nothing in it can be driven.
    """
    try:
        model = robot_model(path, {})
        has_actuators, is_free = bool(model.nu), is_urdf(path) and _has_legs(model)
        stiffness, driven = _stiffness(model), _patterns(model)
        if driven and not has_actuators:
            model = robot_model(path, {}, dict.fromkeys(driven, Servo(kp=stiffness)), is_free)
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not model.nu or not model.njnt:
        raise UserError(f"{path} has no joints that could be driven; an agent needs one or more")
    joint = _driven_joint(model)
    if joint is None or joint.id != 0:  # the first joint is not driven: it moves the whole robot
        is_free = int(model.jnt_type[0]) == mujoco.mjtJoint.mjJNT_FREE
        observed, asked = f"physics.qpos[:, {2 if is_free else 1}:], physics.qvel", "physics.qvel[:, 0]"
        low, high = 0.0, 1.0
    else:
        observed, asked = "physics.qpos, physics.qvel", f"physics.position({json.dumps(joint.name)})"
        low, high = joint.range.tolist() if model.jnt_limited[0] else (-1.0, 1.0)
    robot, folder = path.resolve(), recipe.resolve().parent
    is_near = robot.is_relative_to(folder)  # a run's copies keep their places, seen from the recipe
    place = f"Path(__file__).parent / {json.dumps(robot.relative_to(folder).as_posix())}" if is_near else ""
    return _TEMPLATE.format(
        title=model.names[: model.names.find(b"\0")].decode() or path.stem,
        file=path.name,
        parts="\n".join(f"# {line}".rstrip() for line in _parts(model)),
        observed=observed,
        asked=asked,
        mjcf=place or f"Path({json.dumps(str(robot))})",
        low=f"{low:.3g}",
        high=f"{high:.3g}",
        frame_skip=max(1, round(_STEP / model.opt.timestep)),
        imports="" if has_actuators else "from envs.simulators.actuators import Servo\n",
        settings="" if has_actuators else _settings(model, driven, stiffness, is_free),
        name="".join(letter if letter.isalnum() else "_" for letter in path.stem.lower()),
    )


def _settings(model: Any, driven: list[str], stiffness: float, is_free: bool) -> str:
    """The fields that add actuators to a file without any, a free base to a robot that walks, and a possible start."""
    servo = f"Servo(kp={stiffness:.3g}, kd={stiffness / 40:.3g}, armature={stiffness / 10_000:.1g})"
    by_joint = ", ".join(f"{json.dumps(pattern)}: {servo}" for pattern in driven)
    lines = [f"actuators={{{by_joint}}},  # by joint: the gains are a guess"]
    if is_free:
        lines.append("free_base=True,  # the file fixes the base to the world")
    if start := _inside(model):
        by_joint = ", ".join(f"{json.dumps(joint)}: {position:.3g}" for joint, position in start.items())
        lines.append(f"start={{{by_joint}}},  # zero, the file's start, is out of these joints' ranges")
    return "".join(f"        {line}\n" for line in lines)


def _patterns(model: Any) -> list[str]:
    """Patterns of the joints that can have servos: one for all, or the names of hinges and of slides with a range."""
    joints = [model.joint(index) for index in range(model.njnt) if one_coordinate(model, index)]
    able = [
        joint.name
        for joint in joints
        if joint.name and (model.jnt_limited[joint.id] or int(joint.type[0]) == mujoco.mjtJoint.mjJNT_HINGE)
    ]
    return ["*"] if able and len(able) == sum(bool(joint.name) for joint in joints) else able


def _inside(model: Any) -> dict[str, float]:
    """The middle of the range of each joint that is out of it in the file's own position."""
    joints = [model.joint(index) for index in range(model.njnt) if one_coordinate(model, index)]
    return {
        joint.name: float(joint.range.mean())
        for joint in joints
        if joint.name and model.jnt_limited[joint.id] and not joint.range[0] <= joint.qpos0[0] <= joint.range[1]
    }


def _stiffness(model: Any) -> float:
    """A stiffness with which joints use about their largest force for an error of 0.3 rad; 20 where none is known."""
    limits = [float(model.jnt_actfrcrange[joint, 1]) for joint in range(model.njnt) if model.jnt_actfrclimited[joint]]
    return statistics.median(limits) / 0.3 if limits and min(limits) > 0 else 20.0


def _has_legs(model: Any) -> bool:
    """Whether two limbs or more move at the base of a robot, as legs do."""
    limbs = [body for body in range(1, model.nbody) if model.body_parentid[body] == 0 and model.body_dofnum[body] > 0]
    return len(limbs) > 1


def _driven_joint(model: Any) -> Any:
    """The first joint with one coordinate and a name that an actuator drives; None where there is none."""
    for actuator in range(model.nu):
        joint = model.joint(int(model.actuator_trnid[actuator, 0]))
        by_joint = int(model.actuator_trntype[actuator]) == mujoco.mjtTrn.mjTRN_JOINT
        if by_joint and len(joint.qpos0) == 1 and joint.name:
            return joint
    return None


def _parts(model: Any) -> Iterator[str]:
    """Joints, actuators, bodies and sensors, a line each."""
    yield "joints (position in qpos):"
    for index in range(model.njnt):
        joint = model.joint(index)
        kind = mujoco.mjtJoint(int(model.jnt_type[index])).name.removeprefix("mjJNT_").lower()
        low, high = model.jnt_range[index]
        limits = f", {low:.3g} to {high:.3g}" if model.jnt_limited[index] else ""
        yield f"  {joint.name or '(no name)'}: {kind}{limits} (qpos {model.jnt_qposadr[index]})"
    yield "actuators (an action each):"
    for index in range(model.nu):
        low, high = model.actuator_ctrlrange[index]
        limits = f"{low:.3g} to {high:.3g}" if model.actuator_ctrllimited[index] else "no limits"
        yield f"  {model.actuator(index).name or '(no name)'}: {limits}"
    yield "bodies (mass in kg):"
    for index in range(1, model.nbody):
        yield f"  {model.body(index).name or '(no name)'}: {model.body_mass[index]:.3g}"
    if model.nsensor:
        yield "sensors (entries of physics.sensordata):"
        for index in range(model.nsensor):
            first, size = model.sensor_adr[index], model.sensor_dim[index]
            yield f"  {model.sensor(index).name or '(no name)'}: {first} to {first + size - 1}"
