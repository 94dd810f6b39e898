"""Task parameters that are fields of MuJoCo's model: the elements they change, and their values.

A field has MuJoCo's name: "body_mass", "dof_damping", "geom_friction", "actuator_gear", "opt.gravity". Each selected
body, joint, geom or actuator has its own value, or with `shared=True` they have one together; without a selection, all
of them are selected. Values multiply the model's own or, with `scale=False`, replace them. Inertias change in
proportion to masses.

Two names combine parts of two fields: "actuator_kp", a servo's stiffness, is its gain and its bias by position;
"actuator_kd", its damping, is its bias by velocity and, for a velocity servo, its gain.
"""

# MuJoCo's compiled module has no type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.simulators.model import model_field

# The prefix of a field's name, the argument that selects its elements, and MuJoCo's type of them.
_KINDS = {
    "body_": ("bodies", mujoco.mjtObj.mjOBJ_BODY),
    "jnt_": ("joints", mujoco.mjtObj.mjOBJ_JOINT),
    "dof_": ("joints", mujoco.mjtObj.mjOBJ_JOINT),
    "geom_": ("geoms", mujoco.mjtObj.mjOBJ_GEOM),
    "actuator_": ("actuators", mujoco.mjtObj.mjOBJ_ACTUATOR),
}
_SELECTORS = ("bodies", "joints", "geoms", "actuators")
_FOR_ALL = ("opt.timestep",)  # changing it would change the duration of a step

STIFFNESS, DAMPING = "actuator_kp", "actuator_kd"
_GAIN, _BIAS = "actuator_gainprm", "actuator_biasprm"


@dataclass(frozen=True)
class Target:
    """A part of a model's field that a parameter changes."""

    field: str  # MuJoCo's name
    rows: tuple[int, ...] | None  # rows of the field that are set; None: the whole field
    value_of_row: tuple[int, ...] = ()  # index of the value for each of these rows
    column: int | None = None  # column of these rows that is set; None: all
    sign: float = 1.0  # sign of values that replace the model's own

    def apply(self, current: Tensor, values: Tensor, scale: bool) -> Tensor:
        """The field of B tasks, [B, ...], from what it is without this parameter and the values [B, n]."""
        field = current.clone()
        if self.rows is None:
            values = values.reshape(-1, *(1,) * (field.ndim - 1))
            return field * values if scale else values.expand_as(field).clone()
        rows, values = list(self.rows), values[:, list(self.value_of_row)]
        if self.column is not None:
            field[:, rows, self.column] = field[:, rows, self.column] * values if scale else self.sign * values
            return field
        values = values.reshape(*values.shape, *(1,) * (field.ndim - 2))
        field[:, rows] = field[:, rows] * values if scale else values.expand_as(field[:, rows])
        return field


@dataclass(frozen=True)
class ModelParameter:
    """A parameter that changes the model."""

    name: str
    targets: tuple[Target, ...]
    num_values: int
    scale: bool


def model_parameter(model: mujoco.MjModel, name: str, sampler: Any) -> ModelParameter | None:
    """The model parameter for a task parameter; None for a free one, used only by observations and rewards.

    Raises:
        ValueError: for a name close to a field's, an element that the model lacks, or values without effect.
    """
    is_servo = name in (STIFFNESS, DAMPING)
    field = None if is_servo else _find_field(model, name)
    selections = [kind for kind in _SELECTORS if getattr(sampler, kind, ())]
    if field is None and not is_servo:
        if selections:
            raise ValueError(
                f"task {name!r} selects {selections[0]}, but is no field of MuJoCo's model{near(model, name)}"
            )
        return None
    kind, object_type = next((kind for begin, kind in _KINDS.items() if name.startswith(begin)), (None, None))
    for selection in selections:
        if selection != kind:
            allowed = f"select by {kind}" if kind else "it has no elements to select"
            raise ValueError(f"task {name!r} selects {selection}: {allowed}")
    scale, shared = bool(getattr(sampler, "scale", True)), bool(getattr(sampler, "shared", False))
    if kind is None or object_type is None:
        targets, num_values = (Target(name, None),), 1
    else:
        elements = _elements(model, name, kind, object_type, getattr(sampler, kind, ()))
        value_of = {element: 0 if shared else place for place, element in enumerate(elements)}
        num_values = 1 if shared else len(elements)
        targets = _servo_targets(model, name, value_of) if is_servo else (_target(model, name, value_of),)
    if scale and not any(np.any(_touched(model, target)) for target in targets):
        raise ValueError(f"task {name!r} multiplies values that are all zero in the model: use scale=False")
    if field is not None and not scale and kind is None and field.size > 1:
        raise ValueError(f"task {name!r} has {field.size} numbers; scale=False gives one: multiply the model's own")
    if field is not None and not scale and name.endswith("range"):
        raise ValueError(f"task {name!r} has two ends; scale=False gives one number: multiply the model's own")
    return ModelParameter(name, targets, num_values, scale)


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
            what = f"task {name!r} changes servo {_actuator_name(model, servos[0])!r} apart from its {other}"
            return (
                f"{what}, so it settles elsewhere than it is told to (at a gain of 0.7, a command of 1 rad leads to "
                f"0.7 rad); use {STIFFNESS!r} and {DAMPING!r} for both together, shared=True for one value for all "
                "actuators, or 'actuator_forcerange' for weaker motors"
            )
    return ""


def action_limits(model: mujoco.MjModel) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The lower and upper limit of each actuator's control, [A] float32.

    Raises:
        ValueError: when there is no actuator, or one without limits.
    """
    if model.nu == 0:
        raise ValueError("the model has no actuator; must have at least one")
    for actuator in range(model.nu):
        if not model.actuator_ctrllimited[actuator]:
            raise ValueError(f"actuator {_actuator_name(model, actuator)!r} has no ctrlrange: actions need limits")
    low, high = model.actuator_ctrlrange.T.astype(np.float32)
    return low, high


def physics(
    parameters: Iterable[tuple[ModelParameter, Tensor]], nominal: Callable[[str], Tensor]
) -> Mapping[str, Tensor]:
    """Model fields [B, ...] of B tasks, from parameters and their values [B] or [B, num_values]."""
    fields: dict[str, Tensor] = {}
    for parameter, values in parameters:
        for target in parameter.targets:
            own = nominal(target.field)
            current = fields.get(target.field, own.expand(len(values), *own.shape))
            numbers = values.to(own.dtype).reshape(len(values), parameter.num_values)
            fields[target.field] = target.apply(current, numbers, parameter.scale)
    if "body_mass" in fields and "body_inertia" not in fields:
        mass = nominal("body_mass")
        ratio = torch.where(mass > 0, fields["body_mass"] / mass.clamp(min=1e-300), 1.0)  # [B, bodies]
        fields["body_inertia"] = nominal("body_inertia") * ratio[:, :, None]
    return fields


def _find_field(model: mujoco.MjModel, name: str) -> np.ndarray[Any, Any] | None:
    owner, attribute = (model.opt, name[4:]) if name.startswith("opt.") else (model, name)
    value = getattr(owner, attribute, None)
    if _is_real(value) and name not in _FOR_ALL:
        return np.asarray(value)
    looks_like_one = name.startswith((*_KINDS, "opt.")) or hasattr(model.opt, name) or value is not None
    if looks_like_one:
        reason = "is the same for all tasks" if name in _FOR_ALL else "is no field of MuJoCo's model that can vary"
        raise ValueError(f"task {name!r} {reason}{near(model, name)}")
    return None


def near(model: mujoco.MjModel, name: str) -> str:
    """The field that a name is perhaps meant to be, as the end of a message; "" where none is near."""
    fields = [STIFFNESS, DAMPING, *(field for field in dir(model) if _is_real(getattr(model, field, None)))]
    fields += [f"opt.{field}" for field in dir(model.opt) if _is_real(getattr(model.opt, field, None))]
    fields = [field for field in fields if field not in (*_FOR_ALL, name)]
    whole = [field for field in fields if field.endswith((f"_{name}", f".{name}"))]  # such as "mass" of "body_mass"
    usual = ("body_", "dof_", "geom_", "jnt_", "actuator_", "opt.")
    found = sorted(whole, key=lambda field: [field.startswith(begin) for begin in usual], reverse=True)
    found = found or difflib.get_close_matches(name, fields, n=1)
    return f": did you mean {found[0]!r}?" if found else ""


def _is_real(value: Any) -> bool:
    """Whether a field holds real numbers in double precision, as all that can vary do."""
    return isinstance(value, float) or (isinstance(value, np.ndarray) and value.dtype == np.float64)


def _elements(model: mujoco.MjModel, name: str, kind: str, object_type: Any, selected: Iterable[str]) -> list[int]:
    """Indices of the selected elements; without a selection, of all except the world."""
    size = {"bodies": model.nbody, "joints": model.njnt, "geoms": model.ngeom, "actuators": model.nu}[kind]
    names = [mujoco.mj_id2name(model, object_type.value, index) or "" for index in range(size)]
    if isinstance(selected, str):
        raise ValueError(f"task {name!r} has {kind} {selected!r}; must be a list of names")
    for wanted in selected:
        if wanted not in names or not wanted:
            allowed = ", ".join(repr(known) for known in names if known and known != "world")
            allowed = allowed or "none with a name"
            raise ValueError(f"task {name!r} selects {wanted!r} of {kind}: the model has {allowed}")
    chosen = [names.index(wanted) for wanted in selected] or list(range(1 if kind == "bodies" else 0, size))
    if not chosen:
        raise ValueError(f"task {name!r} has nothing to change: the model has no {kind}")
    return chosen


def _target(model: mujoco.MjModel, name: str, value_of: Mapping[int, int]) -> Target:
    """The field's rows that belong to elements, given the index of the value of each; a joint may have several."""
    if not name.startswith("dof_"):
        return Target(name, tuple(value_of), tuple(value_of.values()))
    joint_of = model.dof_jntid.tolist()
    pairs = [(row, value_of[element]) for element in value_of for row in range(model.nv) if joint_of[row] == element]
    return Target(name, tuple(row for row, _ in pairs), tuple(place for _, place in pairs))


def _servo_targets(model: mujoco.MjModel, name: str, value_of: Mapping[int, int]) -> tuple[Target, ...]:
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
            raise ValueError(f"task {name!r} has actuator {_actuator_name(model, row)!r}, which is not a {kind}")
        if name == STIFFNESS or (not by_position and by_velocity == -gain):
            gains[row] = place
    column = 1 if name == STIFFNESS else 2
    bias = Target(_BIAS, tuple(value_of), tuple(value_of.values()), column, -1.0)
    return (Target(_GAIN, tuple(gains), tuple(gains.values()), 0), bias) if gains else (bias,)


def _touched(model: mujoco.MjModel, target: Target) -> np.ndarray[Any, Any]:
    """The model's own values that a parameter changes."""
    field = np.asarray(model_field(model, target.field))
    if target.rows is None:
        return field
    rows = field[list(target.rows)]
    return rows if target.column is None else rows[:, target.column]


def _actuator_name(model: mujoco.MjModel, actuator: int) -> str | int:
    return mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_ACTUATOR.value, actuator) or actuator
