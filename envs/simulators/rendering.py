"""Images of MuJoCo simulations, with the task drawn into the scene.

`envs.simulators` selects MuJoCo's rendering backend before MuJoCo is imported. An image of 480 x 480 pixels takes some
tens of milliseconds in software and a few on a graphics card.
"""

# MuJoCo's compiled module has no type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

IMAGE_SIZE = 480  # height and width of an image, in pixels

TARGET, ACTUAL = (0.18, 0.72, 0.36, 1.0), (0.95, 0.55, 0.15, 1.0)  # colours of target and actual values


@dataclass(frozen=True)
class Arrow:
    """An arrow from a position [3] along a vector [3], in metres."""

    place: Sequence[float]
    vector: Sequence[float]
    colour: tuple[float, float, float, float] = TARGET


@dataclass(frozen=True)
class Ball:
    """A ball around a position [3], in metres."""

    place: Sequence[float]
    radius: float = 0.12
    colour: tuple[float, float, float, float] = TARGET


class SceneRenderer:
    """Renders simulations of one body, on any engine; frees the graphics context when deleted.

    The camera is the body's own named "track", otherwise its first camera; for a body without cameras, a camera that
    follows a free body or stands still for a fixed one.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        """Open a graphics context.

        Raises:
            RuntimeError: when MuJoCo cannot render on this machine; the message gives the reason in one line.
        """
        try:
            self._renderer = mujoco.Renderer(model, IMAGE_SIZE, IMAGE_SIZE)
        except Exception as error:  # each graphics library raises its own type
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            hint = "the variable MUJOCO_GL chooses between egl, osmesa and glfw"
            raise RuntimeError(f"MuJoCo cannot render here: {reason} ({hint})") from error
        self._camera = _choose_camera(model)
        self._option = mujoco.MjvOption()

    def image(
        self, model: mujoco.MjModel, data: mujoco.MjData, markers: Iterable[Arrow | Ball] = ()
    ) -> NDArray[np.uint8]:
        """An image [480, 480, 3] of the scene with its markers; derived quantities in `data` must be up to date."""
        scene = self._renderer.scene
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(model, data, self._option, None, self._camera, everything, scene)
        add_markers(scene, markers)
        return self._renderer.render()

    def close(self) -> None:
        self._renderer.close()


def moving_body(model: mujoco.MjModel) -> int:
    """The first body with a joint; the world if there is none."""
    moving = np.flatnonzero(model.body_dofnum)
    return int(moving[0]) if len(moving) else 0


def body_motion(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[list[float], list[float]]:
    """The position [3] and velocity [3] of the moving part's centre of mass, in metres and metres per second."""
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
    """Draw markers into a scene, up to its capacity."""
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
    geom.category = mujoco.mjtCatBit.mjCAT_DECOR.value  # decoration, which casts no shadow
    geom.emission = 0.3
    scene.ngeom += 1
