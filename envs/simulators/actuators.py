"""Actuators for a robot whose file has none, as URDF files have none: position servos and motors on its joints."""

# MuJoCo's compiled module has no type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import mujoco
import numpy as np

from envs.simulators.robot_fields import position_servos
from metarl.checks import at_least, positive

_DRIVEN = (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)


@dataclass(frozen=True)
class Servo:
    """A position servo: its force is kp x (control - position) - kd x velocity."""

    kp: float  # stiffness, N m/rad or N/m
    kd: float = 0.0  # damping, N m s/rad or N s/m
    force: float = 0.0  # largest force, N m or N; 0: the joint's own limit, which URDF calls its effort
    limits: Sequence[float] = ()  # lowest and highest control, rad or m; (): the joint's own range
    armature: float = 0.0  # inertia of the rotor as the joint feels it, kg m² or kg; 0: the joint's own

    def __post_init__(self) -> None:
        positive(self, "kp")
        at_least(self, 0, "kd", "force", "armature")
        if self.limits and not (len(self.limits) == 2 and self.limits[0] < self.limits[1]):
            raise ValueError(f"limits is {self.limits!r}; must be two numbers in order, or ()")


@dataclass(frozen=True)
class Motor:
    """A motor: its force is the control, from -1 to 1, times its largest force."""

    force: float = 0.0  # largest force, N m or N; 0: the joint's own limit, which URDF calls its effort
    armature: float = 0.0  # inertia of the rotor as the joint feels it, kg m² or kg; 0: the joint's own

    def __post_init__(self) -> None:
        at_least(self, 0, "force", "armature")


def add_actuators(spec: mujoco.MjSpec, actuators: Mapping[str, Any]) -> None:
    """Put actuators on hinges and slides, in the order of the joints, each with its joint's name.

    actuators: a `Servo` or `Motor` by joint; a name may be a pattern, of which the first that fits counts: "*_knee",
        "*". The file's own actuators of these joints are taken away.

    Raises:
        ValueError: for a name that fits no joint, something else than a servo or a motor, or one without limits.
    """
    joints = [joint for joint in spec.joints if joint.type in _DRIVEN and joint.name]
    for pattern, kind in actuators.items():
        if not isinstance(kind, (Servo, Motor)):
            raise ValueError(f"actuators has {kind!r} for {pattern!r}; must be a Servo or a Motor")
        if not any(fnmatchcase(joint.name, pattern) for joint in joints):
            known = ", ".join(repr(joint.name) for joint in joints) or "none"
            raise ValueError(f"actuators has {pattern!r}; must be a hinge or a slide, or a pattern of them: {known}")
    chosen = {joint.name: _chosen(actuators, joint.name) for joint in joints}
    for actuator in [own for own in spec.actuators if chosen.get(own.target) is not None]:
        spec.delete(actuator)
    for joint in joints:
        kind = chosen[joint.name]
        if kind is not None:
            _add(spec, joint, kind)


def servo_controls(model: mujoco.MjModel, qpos: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Controls [nu] with which position servos of joints hold a position [nq]; zeros for other actuators."""
    controls = np.zeros(model.nu)
    for servo, joint in position_servos(model):
        controls[servo] = model.actuator_gear[servo, 0] * qpos[model.jnt_qposadr[joint]]
    return controls


def _chosen(actuators: Mapping[str, Any], joint: str) -> Servo | Motor | None:
    return next((kind for pattern, kind in actuators.items() if fnmatchcase(joint, pattern)), None)


def _add(spec: mujoco.MjSpec, joint: Any, kind: Servo | Motor) -> None:
    actuator = spec.add_actuator(
        name=joint.name, target=joint.name, trntype=mujoco.mjtTrn.mjTRN_JOINT, ctrllimited=True
    )
    if kind.armature:
        joint.armature = kind.armature
    force = kind.force or _largest_force(joint)
    if isinstance(kind, Motor):
        if not force:
            raise ValueError(f"joint {joint.name!r} has no largest force; set one: Motor(force=...)")
        actuator.set_to_motor()
        actuator.gear[0] = force
        actuator.ctrlrange = [-1, 1]
        return
    actuator.set_to_position(kp=kind.kp, kv=kind.kd)
    actuator.ctrlrange = kind.limits or _range(spec, joint)
    if force:
        actuator.forcelimited = True
        actuator.forcerange = [-force, force]


def _largest_force(joint: Any) -> float:
    low, high = joint.actfrcrange
    return float(min(-low, high)) if low < high else 0.0


def _range(spec: mujoco.MjSpec, joint: Any) -> list[float]:
    """The range of a joint, rad or m; a whole turn for a hinge without limits.

    Raises:
        ValueError: for a slide without limits.
    """
    low, high = joint.range
    if low < high:
        in_degrees = spec.compiler.degree and joint.type == mujoco.mjtJoint.mjJNT_HINGE
        return [math.radians(end) if in_degrees else end for end in (low, high)]
    if joint.type == mujoco.mjtJoint.mjJNT_HINGE:
        return [-math.pi, math.pi]
    raise ValueError(f"joint {joint.name!r} has no range; set one: Servo(..., limits=(low, high))")
