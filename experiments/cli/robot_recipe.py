"""A first recipe for a robot: its parts as comments, and functions that run, to be replaced by the user's own."""

# MuJoCo's compiled module has no type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mujoco

from envs.simulators.model import load_model
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
from experiments import Experiment
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
        horizon=200,
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

    A robot whose first joint is driven is asked for a position of it, any other for a velocity along x.

    Raises:
        UserError: when MuJoCo refuses the file, or nothing in it can be driven.
    """
    try:
        model = load_model(path)
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not model.nu or not model.njnt:
        raise UserError(f"{path} has no actuators; an agent needs one or more (URDF files have none: add them in MJCF)")
    joint = _driven_joint(model)
    if joint is None or joint.id != 0:  # the first joint is not driven: it moves the whole robot
        is_free = int(model.jnt_type[0]) == mujoco.mjtJoint.mjJNT_FREE
        observed, asked = f"physics.qpos[:, {2 if is_free else 1}:], physics.qvel", "physics.qvel[:, 0]"
        low, high = 0.0, 1.0
    else:
        observed, asked = "physics.qpos, physics.qvel", f"physics.position({json.dumps(joint.name)})"
        low, high = joint.range.tolist() if model.jnt_limited[0] else (-1.0, 1.0)
    is_near = path.resolve().parent == recipe.resolve().parent
    return _TEMPLATE.format(
        title=model.names[: model.names.find(b"\0")].decode() or path.stem,
        file=path.name,
        parts="\n".join(f"# {line}".rstrip() for line in _parts(model)),
        observed=observed,
        asked=asked,
        mjcf=f"Path(__file__).parent / {json.dumps(path.name)}"
        if is_near
        else f"Path({json.dumps(str(path.resolve()))})",
        low=f"{low:.3g}",
        high=f"{high:.3g}",
        frame_skip=max(1, round(_STEP / model.opt.timestep)),
        name="".join(letter if letter.isalnum() else "_" for letter in path.stem.lower()),
    )


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
