"""Task parameters that are fields of MuJoCo's model: the elements they change, and their values.

A field has MuJoCo's name: "body_mass", "dof_damping", "geom_friction", "actuator_gear", "opt.gravity". Each selected
body, joint, geom or actuator has its own value; without a selection, all of them are selected. Values multiply the
model's own or, with `scale=False`, replace them. Inertias change in proportion to masses.
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


@dataclass(frozen=True)
class ModelParameter:
    """A parameter that is a field of the model."""

    field: str  # MuJoCo's name
    rows: tuple[int, ...] | None  # rows of the field that are set; None: the whole field
    value_of_row: tuple[int, ...]  # index of the value for each of these rows
    num_values: int
    scale: bool

    def apply(self, nominal: Tensor, values: Tensor) -> Tensor:
        """The field for each of B tasks [B, ...] from its nominal value [...] and values [B] or [B, num_values]."""
        values = values.to(nominal.dtype).reshape(len(values), self.num_values)
        field = nominal.expand(len(values), *nominal.shape).clone()
        if self.rows is None:
            values = values.reshape(-1, *(1,) * nominal.ndim)
            return field * values if self.scale else values.expand_as(field).clone()
        chosen = values[:, list(self.value_of_row)].reshape(len(values), -1, *(1,) * (nominal.ndim - 1))
        rows = list(self.rows)
        field[:, rows] = field[:, rows] * chosen if self.scale else chosen.expand_as(field[:, rows])
        return field


def model_parameter(model: mujoco.MjModel, name: str, sampler: Any) -> ModelParameter | None:
    """The model parameter for a task parameter; None for a free one, used only by observations and rewards.

    Raises:
        ValueError: for a name close to a field's, an element that the model lacks, or values without effect.
    """
    field = _find_field(model, name)
    selections = [kind for kind in _SELECTORS if getattr(sampler, kind, ())]
    if field is None:
        if selections:
            raise ValueError(f"task {name!r} selects {selections[0]}, but is no field of MuJoCo's model{_near(name)}")
        return None
    kind, object_type = next((kind for begin, kind in _KINDS.items() if name.startswith(begin)), (None, None))
    for selection in selections:
        if selection != kind:
            allowed = f"select by {kind}" if kind else "it has no elements to select"
            raise ValueError(f"task {name!r} selects {selection}: {allowed}")
    scale = bool(getattr(sampler, "scale", True))
    if kind is None or object_type is None:
        parameter = ModelParameter(name, None, (), 1, scale)
    else:
        elements = _elements(model, name, kind, object_type, getattr(sampler, kind, ()))
        rows, value_of_row = _rows(model, name, elements)
        parameter = ModelParameter(name, rows, value_of_row, len(elements), scale)
    touched = field if parameter.rows is None else field[list(parameter.rows)]
    if scale and not np.any(touched):
        raise ValueError(f"task {name!r} multiplies values that are all zero in the model: use scale=False")
    if not scale and parameter.rows is None and field.size > 1:
        raise ValueError(f"task {name!r} has {field.size} numbers; scale=False gives one: multiply the model's own")
    return parameter


def action_limits(model: mujoco.MjModel) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The lower and upper limit of each actuator's control, [A] float32.

    Raises:
        ValueError: when there is no actuator, or one without limits.
    """
    if model.nu == 0:
        raise ValueError("the model has no actuator; must have at least one")
    for actuator in range(model.nu):
        if not model.actuator_ctrllimited[actuator]:
            name = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_ACTUATOR.value, actuator) or actuator
            raise ValueError(f"actuator {name!r} has no ctrlrange: actions need limits")
    low, high = model.actuator_ctrlrange.T.astype(np.float32)
    return low, high


def physics(
    parameters: Iterable[tuple[ModelParameter, Tensor]], nominal: Callable[[str], Tensor]
) -> Mapping[str, Tensor]:
    """Model fields [B, ...] of B tasks, from parameters and their values."""
    fields: dict[str, Tensor] = {}
    for parameter, values in parameters:
        fields[parameter.field] = parameter.apply(nominal(parameter.field), values)
    if "body_mass" in fields and "body_inertia" not in fields:
        mass = nominal("body_mass")
        ratio = torch.where(mass > 0, fields["body_mass"] / mass.clamp(min=1e-300), 1.0)  # [B, bodies]
        fields["body_inertia"] = nominal("body_inertia") * ratio[:, :, None]
    return fields


def _find_field(model: mujoco.MjModel, name: str) -> np.ndarray[Any, Any] | None:
    owner, attribute = (model.opt, name[4:]) if name.startswith("opt.") else (model, name)
    value = getattr(owner, attribute, None)
    known = (isinstance(value, np.ndarray) and value.dtype == np.float64) or isinstance(value, float)
    if known and name not in _FOR_ALL:
        return np.asarray(value)
    looks_like_one = name.startswith((*_KINDS, "opt.")) or hasattr(model.opt, name) or value is not None
    if looks_like_one:
        reason = "is the same for all tasks" if name in _FOR_ALL else "is no field of MuJoCo's model that can vary"
        raise ValueError(f"task {name!r} {reason}{_near(name)}")
    return None


def _near(name: str) -> str:
    names = [field for field in dir(mujoco.MjModel) if field.startswith(tuple(_KINDS))]
    names += [f"opt.{field}" for field in dir(mujoco.MjOption) if not field.startswith("_")]
    near = difflib.get_close_matches(name, [field for field in names if field not in (*_FOR_ALL, name)], n=1)
    return f": did you mean {near[0]!r}?" if near else ""


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


def _rows(model: mujoco.MjModel, name: str, elements: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The field's rows that belong to the elements, and the index of the value of each; a joint may have several."""
    if not name.startswith("dof_"):
        return tuple(elements), tuple(range(len(elements)))
    of_joint = model.dof_jntid.tolist()
    pairs = [(row, place) for place, joint in enumerate(elements) for row in range(model.nv) if of_joint[row] == joint]
    return tuple(row for row, _ in pairs), tuple(place for _, place in pairs)
