"""Pictures of MuJoCo simulations, with the task drawn into the scene.

The library that MuJoCo renders by is chosen by `envs.simulators` before MuJoCo is imported. A picture of 480 x 480
takes some tens of milliseconds in software and a few on a graphics card.
"""

# MuJoCo's compiled module has no type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

PICTURE_SIZE = 480  # pixels of a picture, height and width

TARGET, ACTUAL = (0.18, 0.72, 0.36, 1.0), (0.95, 0.55, 0.15, 1.0)  # colours of what is asked for and of what is


@dataclass(frozen=True)
class Arrow:
    """An arrow from a place [3] along a vector [3], in metres."""

    place: Sequence[float]
    vector: Sequence[float]
    colour: tuple[float, float, float, float] = TARGET


@dataclass(frozen=True)
class Ball:
    """A ball around a place [3], in metres."""

    place: Sequence[float]
    radius: float = 0.12
    colour: tuple[float, float, float, float] = TARGET


class SceneRenderer:
    """Draws simulations of one body, whatever their physics; frees the graphics context when it goes.

    The camera is the body's own named "track"; for a body without it, its first camera; for one without any, a camera
    that follows what moves about and stands still before what does not.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        """
        Raises:
            RuntimeError: when MuJoCo cannot render on this machine; the message says why in one line.
        """
        try:
            self._renderer = mujoco.Renderer(model, PICTURE_SIZE, PICTURE_SIZE)
        except Exception as error:  # each graphics library raises its own kind
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            hint = "the variable MUJOCO_GL chooses between egl, osmesa and glfw"
            raise RuntimeError(f"MuJoCo cannot render here: {reason} ({hint})") from error
        self._camera = _choose_camera(model)
        self._option = mujoco.MjvOption()

    def picture(
        self, model: mujoco.MjModel, data: mujoco.MjData, markers: Iterable[Arrow | Ball] = ()
    ) -> NDArray[np.uint8]:
        """The scene with its markers, [480, 480, 3]; quantities derived from `data` must be computed."""
        scene = self._renderer.scene
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(model, data, self._option, None, self._camera, everything, scene)
        add_markers(scene, markers)
        return self._renderer.render()

    def close(self) -> None:
        self._renderer.close()


def moving_body(model: mujoco.MjModel) -> int:
    """The first body that has a joint; the world where none has."""
    moving = np.flatnonzero(model.body_dofnum)
    return int(moving[0]) if len(moving) else 0


def body_motion(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[list[float], list[float]]:
    """Where the centre of what moves is [3], and its velocity [3], in metres and metres a second."""
    body = moving_body(model)
    mujoco.mj_subtreeVel(model, data)
    return data.subtree_com[body].tolist(), data.subtree_linvel[body].tolist()


def _choose_camera(model: mujoco.MjModel) -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    tracking = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA.value, "track")
    if tracking >= 0 or model.ncam:
        camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        camera.fixedcamid = max(tracking, 0)
        return camera
    mujoco.mjv_defaultFreeCamera(model, camera)
    body = moving_body(model)
    joint = model.body_jntadr[body]
    kind = model.jnt_type[joint] if body else None
    endless_rail = kind == mujoco.mjtJoint.mjJNT_SLIDE and not model.jnt_limited[joint]
    if kind == mujoco.mjtJoint.mjJNT_FREE or endless_rail:
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        moving = model.geom_bodyid >= body
        reach = np.linalg.norm(data.geom_xpos[moving] - data.xpos[body], axis=1) + model.geom_rbound[moving]
        camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
        camera.trackbodyid = body
        camera.distance = 4 * float(reach.max(initial=0.25))
        camera.elevation = -20.0
    return camera


def add_markers(scene: mujoco.MjvScene, markers: Iterable[Arrow | Ball]) -> None:
    """Draw markers into a scene, as many as it has room for."""
    for marker in markers:
        if scene.ngeom < scene.maxgeom:
            _add(scene, marker)


def _add(scene: mujoco.MjvScene, marker: Arrow | Ball) -> None:
    geom = scene.geoms[scene.ngeom]
    place, colour = np.array(marker.place, dtype=np.float64), np.array(marker.colour, dtype=np.float32)
    if isinstance(marker, Ball):
        size, upright = np.full(3, marker.radius), np.eye(3).flatten()
        mujoco.mjv_initGeom(geom, mujoco.mjtGeom.mjGEOM_SPHERE.value, size, place, upright, colour)
    else:
        arrow = mujoco.mjtGeom.mjGEOM_ARROW.value
        mujoco.mjv_initGeom(geom, arrow, np.zeros(3), np.zeros(3), np.zeros(9), colour)
        mujoco.mjv_connector(geom, arrow, 0.04, place, place + np.array(marker.vector))
    geom.category = mujoco.mjtCatBit.mjCAT_DECOR.value  # no part of the world: it throws no shadow
    geom.emission = 0.3
    scene.ngeom += 1
