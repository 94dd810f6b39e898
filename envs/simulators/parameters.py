"""Task parameters that change the simulation: the elements they select, and their values.

A field of MuJoCo's model has MuJoCo's name: "body_mass", "dof_damping", "geom_friction", "actuator_gear",
"opt.gravity". Each selected body, joint, geom or actuator has its own value, or with `shared=True` they have one
together; without a selection, all of them are selected. Values multiply the model's own or, with `scale=False`, replace
them. Inertias change in proportion to masses.

"friction" is the part of "geom_friction" that resists sliding. Names that combine several fields of actuators are in
`envs.simulators.actuator_parameters`; those that are no field of MuJoCo's, such as "payload" in kg, are in
`envs.simulators.robot_fields`.
"""

# MuJoCo's compiled module has no type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.samplers import draws
from envs.simulators.actuator_parameters import (
    DAMPING,
    STIFFNESS,
    STRENGTH,
    actuator_name,
    servo_targets,
    strength_targets,
)
from envs.simulators.derived import derive
from envs.simulators.model import model_field
from envs.simulators.robot_fields import ROBOT_FIELDS, check_values, one_coordinate, robot_targets
from envs.simulators.targets import ModelParameter, Target

# The prefix of a field's name, and the argument that selects its elements.
_PREFIXES = {"body_": "bodies", "jnt_": "joints", "dof_": "joints", "geom_": "geoms", "actuator_": "actuators"}
_OBJECTS = {  # MuJoCo's type of the elements, by the argument that selects them
    "bodies": mujoco.mjtObj.mjOBJ_BODY,
    "joints": mujoco.mjtObj.mjOBJ_JOINT,
    "geoms": mujoco.mjtObj.mjOBJ_GEOM,
    "actuators": mujoco.mjtObj.mjOBJ_ACTUATOR,
    "sensors": mujoco.mjtObj.mjOBJ_SENSOR,
}
_FOR_ALL = ("opt.timestep",)  # changing it would change the duration of a step

FRICTION = "friction"
_COMBINED = {STIFFNESS: "actuators", DAMPING: "actuators", STRENGTH: "actuators", FRICTION: "geoms"}
_NAMED = {**_COMBINED, **{name: field.elements for name, field in ROBOT_FIELDS.items()}}  # what each selects


def model_parameter(model: mujoco.MjModel, name: str, sampler: Any) -> ModelParameter | None:
    """The model parameter for a task parameter; None for a free one, used only by observations and rewards.

    Raises:
        ValueError: for a name close to a field's, an element that the model lacks, or values without effect.
    """
    field = None if name in _NAMED else _find_field(model, name)
    selections = [kind for kind in _OBJECTS if getattr(sampler, kind, ())]
    if field is None and name not in _NAMED:
        if selections:
            raise ValueError(
                f"task {name!r} selects {selections[0]}, but is no field of MuJoCo's model{near(model, name)}"
            )
        return None
    kind = _NAMED.get(name) or next((kind for begin, kind in _PREFIXES.items() if name.startswith(begin)), None)
    for selection in selections:
        if selection != kind:
            allowed = f"select by {kind}" if kind else "it has no elements to select"
            raise ValueError(f"task {name!r} selects {selection}: {allowed}")
    scale, shared = bool(getattr(sampler, "scale", True)), bool(getattr(sampler, "shared", False))
    if name in ROBOT_FIELDS:
        check_values(name, draws(sampler))
        scale = False  # there is nothing to multiply
    value_of: dict[int, int] = {}  # index of the value of each element
    if kind is not None:
        if name in ROBOT_FIELDS and ROBOT_FIELDS[name].must_select and not selections:
            raise ValueError(f"task {name!r} selects no {kind}; must name them, such as {kind}=[{_example(model)!r}]")
        elements = _elements(model, name, kind, getattr(sampler, kind, ()))
        value_of = {element: 0 if shared else place for place, element in enumerate(elements)}
    targets = _targets(model, name, value_of)
    if scale and not any(np.any(_touched(model, target)) for target in targets):
        raise ValueError(f"task {name!r} multiplies values that are all zero in the model: use scale=False")
    if name == STRENGTH and not scale:
        raise ValueError(f"task {name!r} has scale=False; must multiply the actuators' own forces")
    if field is not None and not scale and kind is None and field.size > 1:
        raise ValueError(f"task {name!r} has {field.size} numbers; scale=False gives one: multiply the model's own")
    if field is not None and not scale and name.endswith("range"):
        raise ValueError(f"task {name!r} has two ends; scale=False gives one number: multiply the model's own")
    return ModelParameter(name, targets, 1 if kind is None or shared else len(value_of), scale)


def action_limits(model: mujoco.MjModel) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The lower and upper limit of each actuator's control, [A] float32.

    Raises:
        ValueError: when there is no actuator, or one without limits.
    """
    if model.nu == 0:
        raise ValueError("the model has no actuator; must have at least one")
    for actuator in range(model.nu):
        if not model.actuator_ctrllimited[actuator]:
            name = actuator_name(model, actuator)
            raise ValueError(f"actuator {name!r} has no ctrlrange: actions need limits; set it, or `actuators`")
    low, high = model.actuator_ctrlrange.T.astype(np.float32)
    return low, high


def physics(parameters: Iterable[tuple[ModelParameter, Tensor]], nominal: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Fields [B, ...] of MuJoCo's model and of ours for B tasks, from parameters and their values [B] or [B, n]."""
    fields: dict[str, Tensor] = {}
    for parameter, values in parameters:
        for target in parameter.targets:
            own = nominal(target.field) if target.shape is None else values.new_zeros(target.shape, dtype=torch.float64)
            current = fields.get(target.field, own.expand(len(values), *own.shape))
            numbers = values.to(own.dtype).reshape(len(values), parameter.num_values)
            fields[target.field] = target.apply(current, numbers, parameter.scale)
    derive(fields, nominal)
    return fields


def _find_field(model: mujoco.MjModel, name: str) -> np.ndarray[Any, Any] | None:
    owner, attribute = (model.opt, name[4:]) if name.startswith("opt.") else (model, name)
    value = getattr(owner, attribute, None)
    if _is_real(value) and name not in _FOR_ALL:
        return np.asarray(value)
    looks_like_one = name.startswith((*_PREFIXES, "opt.")) or hasattr(model.opt, name) or value is not None
    if looks_like_one:
        reason = "is the same for all tasks" if name in _FOR_ALL else "is no field of MuJoCo's model that can vary"
        raise ValueError(f"task {name!r} {reason}{near(model, name)}")
    return None


def near(model: mujoco.MjModel, name: str) -> str:
    """The field that a name is perhaps meant to be, as the end of a message; "" where none is near."""
    fields = [*_NAMED, *(field for field in dir(model) if _is_real(getattr(model, field, None)))]
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


def _elements(model: mujoco.MjModel, name: str, kind: str, selected: Iterable[str]) -> list[int]:
    """Indices of the selected elements; without a selection, of all except the world and, for encoders, free joints."""
    size = {"bodies": model.nbody, "joints": model.njnt, "geoms": model.ngeom, "actuators": model.nu}
    numbers = range(1 if kind == "bodies" else 0, {**size, "sensors": model.nsensor}[kind])
    names = {_element_name(model, kind, number): number for number in (0, *numbers)}
    if isinstance(selected, str):
        raise ValueError(f"task {name!r} has {kind} {selected!r}; must be a list of names")
    for wanted in selected:
        if wanted not in names or not wanted:
            allowed = ", ".join(repr(known) for known in names if known and known != "world")
            allowed = allowed or "none with a name"
            raise ValueError(f"task {name!r} selects {wanted!r} of {kind}: the model has {allowed}")
    chosen = [names[wanted] for wanted in selected] or list(numbers)
    if name in ROBOT_FIELDS and kind == "joints" and not selected:
        chosen = [joint for joint in chosen if one_coordinate(model, joint)]
    if not chosen:
        raise ValueError(f"task {name!r} has nothing to change: the model has no {kind}")
    return chosen


def _element_name(model: mujoco.MjModel, kind: str, number: int) -> str:
    return mujoco.mj_id2name(model, _OBJECTS[kind].value, number) or ""


def _example(model: mujoco.MjModel) -> str:
    """The name of a body, for a message."""
    names = [_element_name(model, "bodies", body) for body in range(1, model.nbody)]
    return next(filter(None, names), "trunk")


def _targets(model: mujoco.MjModel, name: str, value_of: Mapping[int, int]) -> tuple[Target, ...]:
    """What a parameter sets, given the index of the value of each element; a joint may have several rows."""
    if name in (STIFFNESS, DAMPING):
        return servo_targets(model, name, value_of)
    if name == STRENGTH:
        return strength_targets(model, name, value_of)
    if name in ROBOT_FIELDS:
        return robot_targets(model, name, value_of)
    if not value_of:
        return (Target(name, None),)
    if name == FRICTION:
        return (Target("geom_friction", tuple(value_of), tuple(value_of.values()), 0),)
    if not name.startswith("dof_"):
        return (Target(name, tuple(value_of), tuple(value_of.values())),)
    joint_of = model.dof_jntid.tolist()
    pairs = [(row, value_of[element]) for element in value_of for row in range(model.nv) if joint_of[row] == element]
    return (Target(name, tuple(row for row, _ in pairs), tuple(place for _, place in pairs)),)


def _touched(model: mujoco.MjModel, target: Target) -> np.ndarray[Any, Any]:
    """The model's own values that a parameter changes."""
    field = np.asarray(model_field(model, target.field))
    if target.rows is None:
        return field
    rows = field[list(target.rows)]
    return rows if target.column is None else rows[:, target.column]
