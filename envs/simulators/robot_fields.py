"""Task parameters of robots that are no field of MuJoCo's model, in physical units.

Each sets a field of ours, which is zero without it. Payloads, encoder offsets and terrain become values of MuJoCo's own
fields (`envs.simulators.derived` and `terrain`); the others act while a robot is simulated (`disturbed`).
"""

# MuJoCo's compiled module has no type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch

from envs.simulators.targets import Target

PUSH_INTERVAL = 2.0  # mean time between pushes where no parameter sets it, s

_HINGE, _SLIDE = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)


@dataclass(frozen=True)
class RobotField:
    """What a task parameter of this name sets."""

    field: str
    shape: Callable[[Any], tuple[int, ...]]  # (model) -> the field's shape
    elements: str = ""  # kind of elements to select: "bodies", "joints" or "sensors"; "": none
    column: int | None = None
    least: float | None = None  # smallest value allowed; None: any
    must_select: bool = False  # whether a sampler has to name its elements
    needs: str = ""  # parameter without which this one has no effect


def _of_bodies(model: Any) -> tuple[int, ...]:
    return (model.nbody,)


def _offsets(model: Any) -> tuple[int, ...]:
    return (model.nbody, 3)


def _readings(model: Any) -> tuple[int, ...]:
    return (model.nsensordata,)


def _coordinates(model: Any) -> tuple[int, ...]:
    return (model.nq,)


def _number(model: Any) -> tuple[int, ...]:
    return ()


ROBOT_FIELDS: Mapping[str, RobotField] = {
    "payload": RobotField("payload", _of_bodies, "bodies", least=0.0, must_select=True),
    "payload_x": RobotField("payload_offset", _offsets, "bodies", column=0, must_select=True, needs="payload"),
    "payload_y": RobotField("payload_offset", _offsets, "bodies", column=1, must_select=True, needs="payload"),
    "payload_z": RobotField("payload_offset", _offsets, "bodies", column=2, must_select=True, needs="payload"),
    "push": RobotField("push", _of_bodies, "bodies", least=0.0, must_select=True),
    "push_interval": RobotField("push_interval", _number, least=0.0, needs="push"),
    "action_latency": RobotField("action_latency", _number, least=0.0),
    "obs_latency": RobotField("obs_latency", _number, least=0.0),
    "sensor_noise": RobotField("sensor_noise", _readings, "sensors", least=0.0),
    "sensor_bias": RobotField("sensor_bias", _readings, "sensors"),
    "joint_offset": RobotField("joint_offset", _coordinates, "joints"),
    "terrain_slope": RobotField("terrain_slope", _number),
    "terrain_bumps": RobotField("terrain_bumps", _number, least=0.0),
    "terrain_steps": RobotField("terrain_steps", _number, least=0.0),
}

DISTURBANCES = ("push", "push_interval", "action_latency", "obs_latency", "sensor_noise", "sensor_bias", "joint_offset")
"""Fields of ours that act while a robot is simulated."""

AT_RANDOM_TIMES = ("push", "push_interval")
"""Parameters whose effect may be late."""


def prepare(spec: mujoco.MjSpec, parameters: Collection[str]) -> None:
    """Make a robot's description ready for task parameters of these names.

    MuJoCo simplifies the dynamics of a body whose centre of mass is where its frame is, which these would move.
    """
    if any(name in ("payload_x", "payload_y", "payload_z", "body_ipos", "body_iquat") for name in parameters):
        for body in spec.bodies[1:]:
            body.simple = False


def robot_targets(model: Any, name: str, value_of: Mapping[int, int]) -> tuple[Target, ...]:
    """The parts of fields of ours that a parameter sets, given the index of the value of each element.

    Raises:
        ValueError: when an element is a joint with more than one coordinate.
    """
    kind = ROBOT_FIELDS[name]
    shape = kind.shape(model)
    if not kind.elements:
        return (Target(kind.field, None, shape=shape),)
    pairs = [(row, place) for element, place in value_of.items() for row in _rows(model, name, kind.elements, element)]
    rows, places = tuple(row for row, _ in pairs), tuple(place for _, place in pairs)
    target = Target(kind.field, rows, places, kind.column, shape=shape)
    if name != "joint_offset":
        return (target,)
    servos = {servo: value_of[joint] for servo, joint in position_servos(model) if joint in value_of}
    return (target, Target("servo_offset", tuple(servos), tuple(servos.values()), shape=(model.nu,)))


def one_coordinate(model: Any, joint: int) -> bool:
    """Whether a joint is a hinge or a slide."""
    return int(model.jnt_type[joint]) in (_HINGE, _SLIDE)


def check_needs(parameters: Collection[str]) -> None:
    """Check the names of all parameters.

    Raises:
        ValueError: for one of ours without another that it needs.
    """
    for name in parameters:
        needed = ROBOT_FIELDS[name].needs if name in ROBOT_FIELDS else ""
        if needed and needed not in parameters:
            raise ValueError(f"task {name!r} has no effect without {needed!r}; add that")


def check_values(name: str, values: torch.Tensor) -> None:
    """Check values of a parameter of ours that its sampler has drawn.

    Raises:
        ValueError: for one that is too small.
    """
    least = ROBOT_FIELDS[name].least
    if least is not None and float(values.min()) < least:
        raise ValueError(f"task {name!r} draws {float(values.min()):.3g}; must be at least {least:g}")


def _rows(model: Any, name: str, elements: str, element: int) -> range:
    """The rows of a field of ours that belong to an element."""
    if elements == "joints":
        if not one_coordinate(model, element):
            joint = model.joint(element).name or element
            raise ValueError(f"task {name!r} selects the joint {joint!r}; must be a hinge or a slide")
        first = int(model.jnt_qposadr[element])
        return range(first, first + 1)
    if elements == "sensors":
        first = int(model.sensor_adr[element])
        return range(first, first + int(model.sensor_dim[element]))
    return range(element, element + 1)


def encoders(model: Any) -> np.ndarray[Any, Any]:
    """The coordinate in qpos that each reading of the sensors is an encoder of, [nsensordata]; -1: of none."""
    coordinate = np.full(model.nsensordata, -1)
    for sensor in range(model.nsensor):
        if int(model.sensor_type[sensor]) == mujoco.mjtSensor.mjSENS_JOINTPOS:
            coordinate[model.sensor_adr[sensor]] = model.jnt_qposadr[model.sensor_objid[sensor]]
    return coordinate


def position_servos(model: Any) -> list[tuple[int, int]]:
    """The actuators whose force depends on the position of a joint that they drive, with that joint."""
    by_joint = (mujoco.mjtTrn.mjTRN_JOINT, mujoco.mjtTrn.mjTRN_JOINTINPARENT)
    return [
        (servo, int(model.actuator_trnid[servo, 0]))
        for servo in range(model.nu)
        if int(model.actuator_trntype[servo]) in by_joint and model.actuator_biasprm[servo, 1]
    ]
