"""The common part of both engines: compiling a body, model fields by MuJoCo's names, and logging of warnings."""

# MuJoCo's compiled module has no type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import copy
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.simulators.log_limiter import LogLimiter
from envs.simulators.urdf import is_urdf, readable_urdf

logger = logging.getLogger(__name__)

_log_limiters: dict[str, LogLimiter] = {}  # by message with its numbers removed


def _log_engine_warning(message: str) -> None:
    limiter = _log_limiters.setdefault(re.sub(r"[-+.\d]+(e[-+]?\d+)?", "#", message), LogLimiter())
    if limiter.allows():
        logger.warning("MuJoCo: %s%s", message, f" ({limiter.count} such warnings)" if limiter.count > 1 else "")


# Without a handler, MuJoCo appends its warnings to MUJOCO_LOG.TXT in the working directory. The handler applies to the
# whole process.
mujoco.set_mju_user_warning(_log_engine_warning)


@contextmanager
def no_engine_warnings() -> Iterator[None]:
    """Ignore MuJoCo's warnings, such as those about a file that others wrote."""
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(_log_engine_warning)


def load_model(body: Path, edit: Callable[[mujoco.MjSpec], None] | None = None) -> mujoco.MjModel:
    """Compile an MJCF or URDF file, with the options common to all our bodies.

    edit: changes the body's description before it is compiled, e.g. the length of a limb.

    Solving contact islands separately has no benefit on a single kinematic tree and costs 3 to 8 %; the result without
    it is bit-identical (tests/envs/test_mujoco.py).

    Raises:
        ValueError: when MuJoCo refuses the file, or it has numbers that cannot be simulated.
    """
    spec = _urdf_spec(body) if is_urdf(body) else mujoco.MjSpec.from_file(str(body))
    if edit is not None:
        edit(spec)
    model = spec.compile()
    _check_numbers(model)
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_ISLAND)
    return model


def _urdf_spec(body: Path) -> mujoco.MjSpec:
    text, meshes = readable_urdf(body)
    return mujoco.MjSpec.from_string(text, assets=meshes)


def _check_numbers(model: mujoco.MjModel) -> None:
    """Check the model's numbers.

    Raises:
        ValueError: for a timestep that is not positive and finite, or a NaN, which MuJoCo's parser lets pass.
    """
    if not 0 < model.opt.timestep < math.inf:
        raise ValueError(f"timestep is {model.opt.timestep}; must be positive and finite")
    for prefix, owner in (("", model), ("opt.", model.opt)):
        for name in (name for name in dir(owner) if not name.startswith("_")):
            value = getattr(owner, name)
            if isinstance(value, (float, np.ndarray)) and np.any(value != value):  # which only a NaN does
                raise ValueError(f"{prefix}{name} has a NaN; must be numbers")


def owner_and_attribute(model: Any, name: str) -> tuple[Any, str]:
    """The object that holds a field, and its attribute: "opt.gravity" is in the options, "body_mass" in the model.

    Raises:
        ValueError: when there is no such field.
    """
    owner, attribute = (model.opt, name[4:]) if name.startswith("opt.") else (model, name)
    if not hasattr(owner, attribute):
        raise ValueError(f"{name!r} is not a field of MuJoCo's model; use a name such as 'body_mass'")
    return owner, attribute


def model_field(model: mujoco.MjModel, name: str) -> Any:
    """The value of a model field; raises ValueError when there is no such field."""
    return getattr(*owner_and_attribute(model, name))


def check_fields(model: mujoco.MjModel, num_rows: int, fields: Mapping[str, Tensor]) -> None:
    """Check the values of model fields.

    Raises:
        ValueError: for an unknown field, a shape other than [B, *the field's own], or values that are not finite.
    """
    for name, value in fields.items():
        expected = (num_rows, *np.shape(model_field(model, name)))
        if tuple(value.shape) != expected:
            raise ValueError(f"field {name!r} has shape {tuple(value.shape)}; must be {expected}")
        finite = value.isfinite()
        if not bool(finite.all()):
            row = int((~finite).nonzero()[0, 0])
            raise ValueError(f"field {name!r} of row {row} is {value[row].tolist()}; must be finite")


def with_fields(model: mujoco.MjModel, fields: Mapping[str, Tensor], row: int) -> mujoco.MjModel:
    """A copy of one row's model with its own values of the fields [B, ...] and all constants derived from them."""
    if not fields:
        return model
    model = copy.copy(model)
    for name, value in fields.items():
        owner, attribute = owner_and_attribute(model, name)
        setattr(owner, attribute, value[row].numpy())
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def check_models(model: mujoco.MjModel, num_rows: int, models: Sequence[mujoco.MjModel]) -> None:
    """Check the models of all rows.

    Raises:
        ValueError: unless there is one model per row, with the sizes of the body's own.
    """
    if len(models) != num_rows:
        raise ValueError(f"models has {len(models)} entries; must have one for each of the {num_rows} rows")
    for size in ("nq", "nv", "nu", "na", "nbody", "njnt", "ngeom", "nsite", "ntendon", "neq", "nsensordata"):
        for row, other in enumerate(models):
            if getattr(other, size) != getattr(model, size):
                raise ValueError(
                    f"model of row {row} has {size} = {getattr(other, size)}; must be the body's own, "
                    f"{getattr(model, size)}"
                )


def differing_fields(model: mujoco.MjModel, models: Sequence[mujoco.MjModel]) -> dict[str, Tensor]:
    """The fields of real numbers in which some of the models [B] differ from `model`: their values, [B, ...]."""
    unique = {id(other): other for other in models}
    place = {identity: index for index, identity in enumerate(unique)}
    order = [place[id(other)] for other in models]
    fields: dict[str, Tensor] = {}
    for name in dir(model):
        value = getattr(model, name) if not name.startswith("_") else None
        if not isinstance(value, np.ndarray) or not np.issubdtype(value.dtype, np.floating):
            continue
        others = [getattr(other, name) for other in unique.values()]
        if any(other.shape != value.shape or not np.array_equal(other, value) for other in others):
            fields[name] = torch.from_numpy(np.stack(others)[order])
    return fields


_FREE, _BALL = int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL)
_PARTS = {  # names of a joint's positions and velocities by its type; other joints have one of each
    _FREE: (("x", "y", "z", "qw", "qx", "qy", "qz"), ("vx", "vy", "vz", "wx", "wy", "wz")),
    _BALL: (("qw", "qx", "qy", "qz"), ("wx", "wy", "wz")),
}


def coordinate_names(model: mujoco.MjModel) -> tuple[list[str], list[str]]:
    """Names of the entries of qpos and of qvel, such as "rootz" and "rootz.velocity", from the joints' names."""
    positions: list[str] = []
    velocities: list[str] = []
    for index in range(model.njnt):
        joint = model.joint(index).name or f"joint_{index}"
        parts = _PARTS.get(int(model.jnt_type[index]))
        positions += [joint] if parts is None else [f"{joint}.{part}" for part in parts[0]]
        velocities += [f"{joint}.velocity"] if parts is None else [f"{joint}.{part}" for part in parts[1]]
    return positions, velocities
