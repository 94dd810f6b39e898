"""MuJoCo on a GPU: `mujoco_warp`, with torch tensors sharing the simulator's memory and whole steps as CUDA graphs.

Documentation: https://mujoco.readthedocs.io/en/stable/mjwarp. It needs the optional dependency `metarl[gpu]`.

Nothing in `step` or `reset` waits for the device. The same code runs on Warp's CPU device, where the tests compare it
with the C engine.

Differences from the C engine:
1. Everything is float32, and the solver's tolerance is at least 1e-6.
2. The solver PGS is missing: a body that asks for it is solved by Newton's method, with a log message.
3. Rows that are not active are simulated too, and then restored.
4. Contacts of all rows share one buffer, and each row has a fixed capacity of constraints. If these overflow, contacts
   are dropped with a log message, and the buffers are doubled at the next `set_fields`.
"""

# MuJoCo's compiled module has no type stubs, Warp's arrays have undeclared attributes, and both Warp and `mujoco_warp`
# are optional.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportMissingImports=false

from __future__ import annotations

import contextlib
import copy
import gc
import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any

import mujoco
import mujoco_warp
import numpy as np
import torch
import warp
from torch import Tensor

from envs.simulators import INPUTS
from envs.simulators.derived import matrix
from envs.simulators.model import (
    check_fields,
    check_models,
    differing_fields,
    load_model,
    model_field,
    owner_and_attribute,
)

logger = logging.getLogger(__name__)

warp.config.log_level = warp.LOG_WARNING  # no line per loaded kernel
warp.init()

# MuJoCo's own limit on the values of a valid state.
_LARGEST = 1e10

# Model fields that MuJoCo derives from others: one value per row as soon as any field has one per row.
_DERIVED = (
    "body_subtreemass",
    "body_invweight0",
    "dof_invweight0",
    "tendon_invweight0",
    "tendon_length0",
    "actuator_acc0",
    "eq_data",
    "geom_aabb",
    "geom_rbound",
)

# One value for all rows, without effect here: used only by simulations that may sleep.
_SLEEP = {"dof_length"}

# The state: changed by a step and read by the next one.
_STATE = ("time", "qpos", "qvel", "act", "qacc_warmstart")

_TOO_SMALL = int(
    mujoco_warp.OverflowType.NEFC
    | mujoco_warp.OverflowType.NJMAX_NNZ
    | mujoco_warp.OverflowType.BROADPHASE
    | mujoco_warp.OverflowType.NARROWPHASE
    | mujoco_warp.OverflowType.CCD
)


class GpuPhysics:
    """B simulations on one GPU; implements `envs.simulators.Physics`."""

    asynchronous = True

    def __init__(self, body: Path | mujoco.MjModel, num_rows: int, device: torch.device) -> None:
        """Simulate the MJCF file `body`, or a compiled model, on a CUDA device (or, slowly, on the CPU).

        The first use on a machine compiles the engine's kernels, which takes about a minute; they are cached.
        """
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        self.num_rows = num_rows
        self.device = device
        self.model = copy.copy(body) if isinstance(body, mujoco.MjModel) else load_model(body)
        if self.model.opt.solver == mujoco.mjtSolver.mjSOL_PGS:
            logger.info("the body asks for the solver PGS, which a GPU does not have; using Newton's method")
            self.model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
        self.timestep = float(self.model.opt.timestep)
        self.initial_qpos = torch.tensor(self.model.qpos0, dtype=torch.float32, device=device)
        self._warp_device = warp.device_from_torch(device)
        self._room = 1  # factor on the engine's own estimate of the number of contacts and constraints
        self._nominal: dict[str, Tensor] = {}
        self._expanded: set[str] = set()  # model fields with one value per row
        with self._engine():
            self._model = mujoco_warp.put_model(self.model)
            self._model.opt.warn_overflow = 0  # it would print from the device, at every step
            self._allocate()

    def __reduce__(self) -> Any:
        raise TypeError("GpuPhysics holds memory of a GPU and cannot be pickled; build it in the process that uses it")

    def data(self, name: str) -> Tensor:
        """A field of MuJoCo's data (e.g. "xpos") [B, ...], live, see `Physics.data`.

        Reading a derived field makes every reset compute it.

        Raises:
            ValueError: for a field that MuJoCo's data lacks, or that this engine lacks in MuJoCo's shape.
        """
        if name in ("qpos", "qvel"):
            return getattr(self, name)
        if name not in self._derived:
            values: Any = getattr(self._data, name, None)
            shape = (self.num_rows, *np.shape(getattr(mujoco.MjData(self.model), name, 0.0)))
            if not isinstance(values, warp.array) or values.shape[:1] != shape[:1]:
                raise ValueError(f"{name!r} is not a field of a GPU's data; use a name such as 'xpos'")
            with torch.inference_mode(False):
                empty = torch.zeros(shape, device=self.device)
                self._derived[name] = warp.to_torch(values).view(shape) if empty.numel() else empty
        return self._derived[name]

    def field(self, name: str) -> Tensor:
        """The body's own value of a model field (e.g. "body_mass" or "opt.gravity"), in float64; a copy."""
        if name not in self._nominal:
            value = np.array(model_field(self.model, name), dtype=np.float64)
            self._nominal[name] = torch.from_numpy(value).to(self.device)
        return self._nominal[name].clone()

    def set_fields(self, fields: Mapping[str, Tensor]) -> None:
        """Give each row its own values [B, ...] of some model fields; costs nothing per step afterwards.

        Raises:
            ValueError: for a field MuJoCo does not have or that all rows share on a GPU, values of another shape than
                [B, *the field's own], or not finite.
        """
        check_fields(self.model, self.num_rows, fields)
        with self._engine():
            if self._room_is_short():
                self._allocate()
            derived = _DERIVED if any(not name.startswith("opt.") for name in fields) else ()
            for name in derived:
                self._expand(name)
            self._write(fields)
            if derived:
                mujoco_warp.set_const(self._model, self._data, restore=False)
            self._place_static_geoms()

    def set_models(self, models: Sequence[mujoco.MjModel]) -> None:
        """Give each row its own model's numbers, compiled from one description with different numbers.

        Raises:
            ValueError: when there is not one per row, the sizes of one differ, or they differ in fields that all rows
                share on a GPU.
        """
        check_models(self.model, self.num_rows, models)
        fields = differing_fields(self.model, models)
        nominal = {name: self.field(name).expand(self.num_rows, *self.field(name).shape) for name in self._expanded}
        unused = _SLEEP | set(fields) - {field.name for field in dataclass_fields(self._model)}
        with self._engine():
            self._write({name: value for name, value in (nominal | fields).items() if name not in unused})
            self._place_static_geoms()

    def reset(
        self, qpos: Tensor, qvel: Tensor, rows: Tensor | None = None, inputs: Mapping[str, Tensor] | None = None
    ) -> None:
        """Reset all rows, or those where `rows` [B] is true; also clears warm starts."""
        if rows is None:
            self._reset_rows.fill_(True)
        else:
            self._reset_rows.copy_(rows)
        self._run("reset", lambda: mujoco_warp.reset_data(self._model, self._data, reset=self._warp_reset_rows))
        for state, value in ((self.qpos, qpos), (self.qvel, qvel), *self._with_values(inputs)):
            state.copy_(value if rows is None else _where_row(rows, value, state))
        if self._derived:
            before = None if rows is None else self._copy_state()
            self._run("forward", lambda: mujoco_warp.forward(self._model, self._data))
            if rows is not None and before is not None:
                self._put_back(before, ~rows)

    def step(
        self, ctrl: Tensor, num_substeps: int, rows: Tensor | None = None, inputs: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Advance all rows, or those where `rows` [B] is true; returns the rows that diverged, [B] bool."""

        def substeps() -> None:
            for _ in range(num_substeps):
                mujoco_warp.step(self._model, self._data)

        before = None if rows is None else self._copy_state()
        for state, value in self._with_values({"ctrl": ctrl.detach(), **(inputs or {})}):
            state.copy_(value if rows is None else _where_row(rows, value, state))
        self._run(("step", num_substeps), substeps)
        self._overflow.bitwise_or_(self._last_overflow)
        sound = (torch.cat([self.qpos, self.qvel, self._qacc], 1).abs() <= _LARGEST).all(1)  # false for NaN
        if rows is None or before is None:
            return ~sound
        self._put_back(before, ~rows)
        return ~sound & rows

    def copy_row(self, row: int) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """One row's own model and data with derived quantities computed, for rendering; waits for the device."""
        model = copy.copy(self.model)
        for name in self._expanded:
            owner, attribute = owner_and_attribute(model, name)
            value = warp.to_torch(getattr(*owner_and_attribute(self._model, name)))[row]
            getattr(owner, attribute)[...] = value.double().cpu().numpy().reshape(np.shape(getattr(owner, attribute)))
        data = mujoco.MjData(model)
        for name in ("qpos", "qvel", *INPUTS):
            getattr(data, name)[...] = warp.to_torch(getattr(self._data, name))[row].cpu().numpy()
        mujoco.mj_forward(model, data)
        return model, data

    def _with_values(self, inputs: Mapping[str, Tensor] | None) -> list[tuple[Tensor, Tensor]]:
        return [(self._inputs[name], value) for name, value in (inputs or {}).items()]

    def _copy_state(self) -> list[Tensor]:
        return [value.clone() for value in (*self._state, *self._derived.values())]

    def _put_back(self, before: list[Tensor], rows: Tensor) -> None:
        """Restore the copied state in the rows [B] (bool)."""
        for value, old in zip((*self._state, *self._derived.values()), before, strict=True):
            value.copy_(_where_row(rows, old, value))

    # Memory and graphs

    def _allocate(self) -> None:
        """Allocate the simulations' memory and torch's views of it, and run a first step, which loads the kernels."""
        guess = mujoco_warp.make_data(self.model, 1)
        self._data = mujoco_warp.make_data(
            self.model, self.num_rows, nconmax=self._room * guess.naconmax, njmax=self._room * guess.njmax
        )
        self._graphs: dict[Hashable, Any] = {}
        self._derived: dict[str, Tensor] = {}  # derived data fields in use, [B, ...]
        self._warp_reset_rows = warp.ones(self.num_rows, dtype=bool)
        self._reset_rows = warp.to_torch(self._warp_reset_rows)  # [B] bool
        self._state = [warp.to_torch(getattr(self._data, name)) for name in _STATE]
        self.qpos, self.qvel = self._state[1], self._state[2]
        self._inputs = {name: warp.to_torch(getattr(self._data, name)) for name in INPUTS}  # [B, ...]
        self._qacc = warp.to_torch(self._data.qacc)
        self._last_overflow = warp.to_torch(self._data.overflow)  # [B], bit flags; cleared by a reset
        self._overflow = torch.zeros_like(self._last_overflow)  # [B], since the last check
        mujoco_warp.step(self._model, self._data)
        mujoco_warp.reset_data(self._model, self._data, reset=self._warp_reset_rows)

    def _write(self, fields: Mapping[str, Tensor]) -> None:
        """Write values [B, ...] into the engine's model."""
        for name, value in fields.items():
            self._expand(name)
            view = warp.to_torch(getattr(*owner_and_attribute(self._model, name)))
            view.copy_(value.reshape(view.shape))

    def _place_static_geoms(self) -> None:
        """Place the geoms of the world, such as the ground, where the rows have them; the engine does so only once."""
        if not self._expanded & {"geom_pos", "geom_quat"}:
            return
        model, data = self.model, mujoco.MjData(self.model)
        mujoco.mj_kinematics(model, data)
        place, turn = (warp.to_torch(getattr(self._model, name)) for name in ("geom_pos", "geom_quat"))  # [B or 1, ...]
        place_now, turn_now = (warp.to_torch(getattr(self._data, name)) for name in ("geom_xpos", "geom_xmat"))
        for geom, body in enumerate(model.geom_bodyid.tolist()):
            if model.body_weldid[body] == 0 and model.body_mocapid[model.body_rootid[body]] < 0:
                position, rotation = (torch.from_numpy(value[body]).to(place) for value in (data.xpos, data.xmat))
                rotation = rotation.view(3, 3)
                place_now[:, geom] = position + place[:, geom] @ rotation.T
                turn_now[:, geom] = rotation @ matrix(turn[:, geom])

    def _room_is_short(self) -> bool:
        """Whether contacts were dropped since the last check; if so, doubles the buffers. Waits for the device."""
        found = int((self._overflow & _TOO_SMALL).ne(0).sum())
        if not found:
            return False
        self._room *= 2
        logger.warning(
            "contacts or constraints of %d of %d rows did not fit and were dropped; doubling the buffers",
            found,
            self.num_rows,
        )
        return True

    def _expand(self, name: str) -> None:
        """Expand a field of the engine's model to one value per row, its current one.

        Raises:
            ValueError: when the engine has one value for all rows.
        """
        if name in self._expanded:
            return
        owner, attribute = owner_and_attribute(self._model, name)
        old: Any = getattr(owner, attribute, None)
        spec = {field.name: field.type for field in dataclass_fields(owner)}.get(attribute)
        if not isinstance(old, warp.array) or getattr(spec, "shape", (None,))[0] != "*":
            raise ValueError(f"field {name!r} cannot differ from row to row on a GPU")
        values = warp.to_torch(old)
        new = warp.zeros((self.num_rows, *old.shape[1:]), dtype=old.dtype)
        if values.numel():
            warp.to_torch(new).copy_(values.expand(self.num_rows, *values.shape[1:]))
        setattr(owner, attribute, new)
        self._expanded.add(name)
        self._graphs.clear()  # they read the old memory

    def _run(self, key: Hashable, operations: Callable[[], None]) -> None:
        """Launch operations as one CUDA graph, recorded at first use, on torch's current stream."""
        if key not in self._graphs:
            with self._engine(), _no_garbage_collection(), warp.ScopedCapture() as capture:
                operations()
            self._graphs[key] = capture.graph
        stream = warp.stream_from_torch(self.device) if self._warp_device.is_cuda else None
        warp.capture_launch(self._graphs[key], stream=stream)

    @contextlib.contextmanager
    def _engine(self) -> Iterator[None]:
        """A context for engine calls outside graphs: on this device, in order with torch's operations.

        Tensors made here can be modified inside and outside inference mode.
        """
        with torch.inference_mode(False), warp.ScopedDevice(self._warp_device):
            if self._warp_device.is_cuda:
                self._warp_device.stream.wait_stream(warp.stream_from_torch(self.device))
            yield
            if self._warp_device.is_cuda:
                warp.stream_from_torch(self.device).wait_stream(self._warp_device.stream)


def _where_row(rows: Tensor, chosen: Tensor, otherwise: Tensor) -> Tensor:
    """Rows [B] bool of one tensor [B, ...], and the others of another."""
    return torch.where(rows.view(-1, *(1,) * (chosen.ndim - 1)), chosen, otherwise)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Memory must not be freed while a graph is recorded."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
