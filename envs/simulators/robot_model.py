"""The model of a robot: its file, with the actuators, the base and the ground that a family adds to it."""

# MuJoCo's compiled module has no type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from envs.simulators.actuators import add_actuators, servo_controls
from envs.simulators.model import load_model
from envs.simulators.robot_fields import prepare
from envs.simulators.terrain import Terrain, let_ground_move, terrain_of
from envs.simulators.urdf import is_urdf

_GROUND = (mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_HFIELD)


def robot_model(
    path: Path,
    samplers: Mapping[str, Any],
    actuators: Mapping[str, Any] | None = None,
    free_base: bool = False,
) -> mujoco.MjModel:
    """Compile an MJCF or URDF file.

    samplers: the task parameters that the model is to have, by name.
    actuators: see `envs.simulators.actuators.add_actuators`.
    free_base: whether a base that is fixed to the world is to move freely; it then starts just above the ground.

    Raises:
        ValueError: when MuJoCo refuses the file, or for what it lacks.
    """

    def edit(spec: mujoco.MjSpec, height: float = 0.0, terrain: Terrain | None = None) -> None:
        prepare(spec, samplers)
        if actuators:
            add_actuators(spec, actuators)
            for key in spec.keys:
                key.ctrl = []  # `_complete_keyframes` fills them
        if free_base:
            _free_base(spec, height)
        if is_urdf(path):
            _add_light(spec)
        if terrain is not None:
            terrain.shape_ground(spec)

    model, lift, terrain = load_model(path, edit), 0.0, terrain_of(samplers)
    if free_base:
        lift = -lowest_point(model, model.qpos0)
        model = load_model(path, lambda spec: edit(spec, lift))
    if terrain is not None:
        seen = model.stat  # how far a camera looks from, and the nearest that it sees, are for the robot
        model = load_model(path, lambda spec: edit(spec, lift, terrain))
        model.stat.extent, model.stat.center[:] = seen.extent, seen.center
        let_ground_move(model)
    if actuators:
        _complete_keyframes(model)
    return model


def _free_base(spec: mujoco.MjSpec, height: float) -> None:
    """Let the robot's base move, raised by a height, and put ground under it where the file has none.

    Raises:
        ValueError: when several bodies may be the base, or its base moves already.
    """
    bases = spec.worldbody.bodies
    if len(bases) != 1:
        names = ", ".join(repr(body.name) for body in bases)
        raise ValueError(f"free_base is True, but the file has {len(bases)} bodies in the world: {names}")
    [base] = bases
    if base.joints:
        raise ValueError(f"free_base is True, but the base {base.name!r} has joints already; leave it out")
    base.add_freejoint(name="root")
    base.pos = [base.pos[0], base.pos[1], base.pos[2] + height]
    if not any(geom.type in _GROUND for geom in spec.geoms):
        spec.worldbody.add_geom(
            name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 1], rgba=[0.6, 0.65, 0.6, 1]
        )


def _add_light(spec: mujoco.MjSpec) -> None:
    if not spec.lights:
        spec.worldbody.add_light(pos=[0, 0, 4], dir=[0, 0, -1], type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)


def lowest_point(model: mujoco.MjModel, qpos: np.ndarray[Any, Any]) -> float:
    """The height of the lowest point of the robot's shapes in a position [nq]; 0 without shapes."""
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    corners = np.stack(np.meshgrid(*[(-1, 1)] * 3), -1).reshape(-1, 3)
    lowest = [
        float((data.geom_xpos[geom] + (center + corners * half) @ data.geom_xmat[geom].reshape(3, 3).T)[:, 2].min())
        for geom in range(model.ngeom)
        for center, half in [np.split(model.geom_aabb[geom], 2)]
        if model.geom_bodyid[geom] and (model.geom_contype[geom] or model.geom_conaffinity[geom])
    ]
    return min(lowest, default=0.0)


def _complete_keyframes(model: mujoco.MjModel) -> None:
    """Let the position servos of keyframes hold what their joints are at."""
    for key in range(model.nkey):
        model.key_ctrl[key] = servo_controls(model, model.key_qpos[key])
