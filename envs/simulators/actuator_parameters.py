"""Task parameters that change several fields of MuJoCo's actuators together, and a warning about one that does not.

"actuator_kp", a servo's stiffness, is its gain and its bias by position. "actuator_kd", its damping, is its bias by
velocity and, for a velocity servo, its gain. "motor_strength" multiplies an actuator's force: its gain, its bias and
the limits of the force.
"""

# MuJoCo's compiled module has no type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np

from envs.simulators.targets import ModelParameter, Target

STIFFNESS, DAMPING, STRENGTH = "actuator_kp", "actuator_kd", "motor_strength"
_GAIN, _BIAS, _LIMITS = "actuator_gainprm", "actuator_biasprm", "actuator_forcerange"

# The numbers of gain and bias that a force is proportional to: all of a motor or servo, the two scales of a muscle.
_SCALED = {
    mujoco.mjtGain.mjGAIN_FIXED: (0, 1, 2),
    mujoco.mjtGain.mjGAIN_AFFINE: (0, 1, 2),
    mujoco.mjtGain.mjGAIN_MUSCLE: (2, 3),
}


def servo_targets(model: mujoco.MjModel, name: str, value_of: Mapping[int, int]) -> tuple[Target, ...]:
    """The rows of the gains of a servo parameter, and the places of their values.

    Raises:
        ValueError: for an actuator that is not a servo of the right kind.
    """
    gains: dict[int, int] = {}  # rows of the gain, and the places of their values
    for row, place in value_of.items():
        gain, (_, by_position, by_velocity) = model.actuator_gainprm[row, 0], model.actuator_biasprm[row, :3]
        has_stiffness, has_damping = by_position != 0 and by_position == -gain, by_velocity != 0
        if not (has_stiffness if name == STIFFNESS else has_damping or has_stiffness):
            kind = "position servo" if name == STIFFNESS else "servo"
            raise ValueError(f"task {name!r} has actuator {actuator_name(model, row)!r}, which is not a {kind}")
        if name == STIFFNESS or (not by_position and by_velocity == -gain):
            gains[row] = place
    column = 1 if name == STIFFNESS else 2
    bias = Target(_BIAS, tuple(value_of), tuple(value_of.values()), column, -1.0)
    return (Target(_GAIN, tuple(gains), tuple(gains.values()), 0), bias) if gains else (bias,)


def strength_targets(model: mujoco.MjModel, name: str, value_of: Mapping[int, int]) -> tuple[Target, ...]:
    """The rows and columns that the forces of actuators are proportional to, and the places of their values.

    Raises:
        ValueError: for an actuator whose force is not proportional to numbers of the model.
    """
    rows_of: dict[int, dict[int, int]] = {}  # by column: rows, and the places of their values
    for row, place in value_of.items():
        columns = _SCALED.get(mujoco.mjtGain(int(model.actuator_gaintype[row])))
        if columns is None or int(model.actuator_biastype[row]) == mujoco.mjtBias.mjBIAS_USER:
            raise ValueError(
                f"task {name!r} has actuator {actuator_name(model, row)!r}; must be a motor, a servo or a muscle"
            )
        for column in columns:
            rows_of.setdefault(column, {})[row] = place
    targets = [
        Target(field, tuple(rows), tuple(rows.values()), column)
        for field in (_GAIN, _BIAS)
        for column, rows in rows_of.items()
    ]
    return (*targets, Target(_LIMITS, tuple(value_of), tuple(value_of.values())))


def half_servos(model: mujoco.MjModel, parameters: Mapping[str, ModelParameter | None]) -> str:
    """What to know about tasks that change the gain of a servo apart from its bias; "" where none does.

    A position servo's force is gain x command - stiffness x position - damping x velocity, with the stiffness in the
    bias: a gain of 0.7 times its own turns a command of 1 rad into 0.7 rad, and leaves the servo as stiff as it was.
    """
    for name, other in ((_GAIN, "bias"), (_BIAS, "gain")):
        parameter = parameters.get(name)
        rows = () if parameter is None else parameter.targets[0].rows or ()
        servos = [row for row in rows if np.any(model.actuator_biasprm[row]) and np.any(model.actuator_gainprm[row])]
        if servos:
            what = f"task {name!r} changes servo {actuator_name(model, servos[0])!r} apart from its {other}"
            return (
                f"{what}, so it settles elsewhere than it is told to (at a gain of 0.7, a command of 1 rad leads to "
                f"0.7 rad); use {STIFFNESS!r} and {DAMPING!r} for both together, or {STRENGTH!r} for weaker motors, "
                "shared=True for one value for all actuators"
            )
    return ""


def actuator_name(model: mujoco.MjModel, actuator: int) -> str | int:
    """An actuator's name, or its number where it has none."""
    return mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_ACTUATOR.value, actuator) or actuator
