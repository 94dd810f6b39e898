"""Batched physics as seen by user functions: MuJoCo's data fields by attribute, joints and bodies by name."""

# MuJoCo's compiled module has no type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor


class Names:
    """Indices of a model's joints and bodies in its fields, by name, or by number for unnamed ones."""

    def __init__(self, model: mujoco.MjModel) -> None:
        joints, bodies = mujoco.mjtObj.mjOBJ_JOINT.value, mujoco.mjtObj.mjOBJ_BODY.value
        positions = [*map(int, model.jnt_qposadr), model.nq]
        velocities = [*map(int, model.jnt_dofadr), model.nv]
        self._joints = {
            mujoco.mj_id2name(model, joints, joint) or str(joint): (
                slice(positions[joint], positions[joint + 1]),
                slice(velocities[joint], velocities[joint + 1]),
            )
            for joint in range(model.njnt)
        }
        self._bodies = {mujoco.mj_id2name(model, bodies, body) or str(body): body for body in range(model.nbody)}

    def joint(self, name: str) -> tuple[slice, slice]:
        """A joint's slices of qpos and qvel; raises ValueError for one that the model lacks."""
        return _found("joint", name, self._joints)

    def body(self, name: str) -> int:
        """A body's number; raises ValueError for one that the model lacks."""
        return _found("body", name, self._bodies)


class BatchedPhysics:
    """B simulations of one model at one moment.

    `physics.qpos` [B, nq], `physics.qvel` [B, nv], `physics.xpos` [B, nbody, 3], `physics.sensordata` [B, n] and other
    fields of MuJoCo's data have the engine's dtype and are live: copy values to keep them. As after MuJoCo's own step,
    fields derived from positions and velocities are one substep behind these two.
    """

    def __init__(self, state: Any, before: Any, dt: float, names: Names) -> None:
        self.dt = dt  # duration of a step, in seconds
        self._state, self._before, self._names = state, before, names

    def __getattr__(self, field: str) -> Tensor:
        if field.startswith("_"):  # never a data field; copying looks up such names
            raise AttributeError(field)
        return getattr(self._state, field)

    @property
    def before(self) -> Any:
        """The fields before the last step; for `reward` and `metrics`.

        Raises:
            ValueError: elsewhere, because there is no step before an episode's start.
        """
        if self._before is None:
            raise ValueError("physics.before is available in reward and metrics only")
        return self._before

    def position(self, joint: str) -> Tensor:
        """A joint's position: [B] m or rad for a slide or a hinge, [B, 4] for a ball, [B, 7] for a free joint.

        Raises:
            ValueError: for a joint that the model lacks.
        """
        return _squeezed(self.qpos[:, self._names.joint(joint)[0]])

    def velocity(self, joint: str) -> Tensor:
        """A joint's velocity: [B] m/s or rad/s, [B, 3] for a ball, [B, 6] for a free joint.

        Raises:
            ValueError: for a joint that the model lacks.
        """
        return _squeezed(self.qvel[:, self._names.joint(joint)[1]])

    def body(self, body: str) -> Tensor:
        """The position of a body's frame in the world, [B, 3] m.

        Raises:
            ValueError: for a body that the model lacks.
        """
        return self.xpos[:, self._names.body(body)]


class RestingState:
    """B rows of a model at rest, on which functions are tried out; records the fields that they read.

    start: fields of the data to start from, each without the axis of rows; default: the model's own position.
    """

    def __init__(self, model: mujoco.MjModel, num_rows: int, start: Mapping[str, Any] | None = None) -> None:
        self.used: set[str] = set()  # fields that were read
        self._num_rows = num_rows
        self._data = mujoco.MjData(model)
        for name, value in (start or {}).items():
            getattr(self._data, name)[...] = value
        mujoco.mj_forward(model, self._data)

    def __getattr__(self, field: str) -> Tensor:
        value = getattr(self._data, field, None)
        if not isinstance(value, np.ndarray) or value.dtype != np.float64:
            fields = [name for name in dir(self._data) if isinstance(getattr(self._data, name, None), np.ndarray)]
            near = difflib.get_close_matches(field, fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "use a name such as 'xpos' or 'sensordata'"
            raise ValueError(f"{field!r} is not a field of MuJoCo's data: {hint}")
        self.used.add(field)
        return torch.from_numpy(value.copy()).expand(self._num_rows, *value.shape).clone()


def _found(kind: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        raise ValueError(f"the model has no {kind} {name!r}: it has {', '.join(map(repr, known))}")
    return known[name]


def _squeezed(values: Tensor) -> Tensor:
    return values[:, 0] if values.shape[1] == 1 else values
