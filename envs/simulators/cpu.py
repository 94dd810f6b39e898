"""MuJoCo on CPU threads: the C engine behind `mujoco.batch.Batch`, without a Python loop over rows.

Documentation: https://mujoco.readthedocs.io (Python bindings, batch). Results are bit-identical to one MjData per row
stepped by `mj_step`, at any number of threads.

A batch owns native threads and memory: it cannot be pickled, a forked child that uses an inherited one deadlocks (start
workers with "spawn" and build the environment in them), and two Python threads must not use one at the same time.
"""

# MuJoCo's compiled module has no type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import difflib
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch
from mujoco.batch import DATA_FIELDS, Batch, SimulationError
from torch import Tensor

from envs.simulators.cpu_count import available_cpus
from envs.simulators.log_limiter import LogLimiter
from envs.simulators.model import check_fields, check_models, load_model, model_field, with_fields

logger = logging.getLogger(__name__)

_ROWS_PER_THREAD = 8  # below this, waking a thread costs more than it saves

# The kinds in `Batch.warning` [rows, kind, (last, count)] after which MuJoCo has reset the row or ignored its controls:
# BADQPOS, BADQVEL, BADQACC, BADCTRL are contiguous.
_FIRST_BAD = int(mujoco.mjtWarning.mjWARN_BADQPOS)
_BAD = (slice(None), slice(_FIRST_BAD, int(mujoco.mjtWarning.mjWARN_BADCTRL) + 1), 1)


class CpuPhysics:
    """B simulations on native threads; implements `envs.simulators.Physics`."""

    asynchronous = False

    def __init__(
        self,
        body: Path | mujoco.MjModel,
        num_rows: int,
        num_threads: int | None = None,
        *,
        contact_forces: bool = False,
    ) -> None:
        """Compile the MJCF file `body`, or take a model that `load_model` has compiled.

        num_threads: None for a number suited to the machine and the number of rows, see `suitable_threads`.
        contact_forces: compute "cfrc_ext" after each step, which takes some 15 % of a step's time.
        """
        self.num_rows = num_rows
        self.device = torch.device("cpu")
        self.num_threads = suitable_threads(num_rows) if num_threads is None else num_threads
        self.model: Any = body if isinstance(body, mujoco.MjModel) else load_model(body)
        self.timestep = float(self.model.opt.timestep)
        self._models: list[mujoco.MjModel] | None = None  # one model per row, if rows have their own
        self._errors = LogLimiter()
        self._contact_forces: Tensor | None = None  # [B, bodies, 6], live
        if contact_forces:
            self._contact_forces = torch.zeros(num_rows, self.model.nbody, 6, dtype=torch.float64)
        self._scratch = mujoco.MjData(self.model) if contact_forces else None
        self._start()
        self.initial_qpos = torch.from_numpy(self.model.qpos0.copy())

    def _start(self) -> None:
        """Threads and memory for B simulations, and views of the memory."""
        self._has_fields = False
        # Contact forces come from by-products of a step, which only a persistent batch keeps.
        persistent = self._contact_forces is not None
        self._batch = Batch(self.model, self.num_rows, self.num_threads, persistent=persistent)
        self._qpos: np.ndarray[Any, Any] = self._batch.bind("qpos")
        self._qvel: np.ndarray[Any, Any] = self._batch.bind("qvel")
        self._inputs: dict[str, np.ndarray[Any, Any]] = {}  # that have been written, [B, ...], live
        self._num_bad: np.ndarray[Any, Any] = self._batch.warning[_BAD]  # [B, 4], live
        self.qpos = torch.from_numpy(self._qpos)
        self.qvel = torch.from_numpy(self._qvel)

    def __reduce__(self) -> Any:
        raise TypeError("CpuPhysics holds native threads and cannot be pickled; build it in the process that uses it")

    def data(self, name: str) -> Tensor:
        """A field of MuJoCo's data (e.g. "xpos") [B, ...], live, see `Physics.data`.

        Raises:
            ValueError: for a field that MuJoCo's data lacks or whose size is not fixed.
        """
        if name in ("qpos", "qvel"):
            return getattr(self, name)
        if name == "cfrc_ext" and self._contact_forces is not None:
            return self._contact_forces
        if name not in DATA_FIELDS:
            near = difflib.get_close_matches(name, DATA_FIELDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "use a name such as 'xpos' or 'sensordata'"
            raise ValueError(f"{name!r} is not a field of MuJoCo's data: {hint}")
        with warnings.catch_warnings():  # torch warns that the array is not writable
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(self._batch.bind(name))

    def field(self, name: str) -> Tensor:
        """The body's own value of a model field (e.g. "body_mass" or "opt.gravity"); a copy."""
        return torch.from_numpy(np.array(model_field(self.model, name), dtype=np.float64))

    def set_fields(self, fields: Mapping[str, Tensor]) -> None:
        """Give each row its own values [B, ...] of some model fields; costs nothing per step afterwards.

        Raises:
            ValueError: for a field MuJoCo does not have, values of another shape than [B, *the field's own], or not
                finite.
        """
        check_fields(self.model, self.num_rows, fields)
        if self._models is not None:
            made: dict[Any, mujoco.MjModel] = {}  # rows of one task share a model, which is faster
            for row, model in enumerate(self._models):
                key = (id(model), *(value[row].numpy().tobytes() for value in fields.values()))
                if key not in made:
                    made[key] = with_fields(model, fields, row)
                self._models[row] = made[key]
            self._batch.set_models(self._models)
            return
        for name, value in fields.items():
            self._batch.expand(name)[...] = value.numpy()
        if fields:
            self._batch.set_const()
            self._has_fields = True

    def set_models(self, models: Sequence[mujoco.MjModel]) -> None:
        """Give each row its own model, compiled from one description with different numbers.

        Raises:
            ValueError: when there is not one per row, or the sizes of one differ.
        """
        check_models(self.model, self.num_rows, models)
        if self._has_fields:
            self._start()  # a batch holds one or the other
        self._models = list(models)
        self._batch.set_models(self._models)

    def reset(
        self, qpos: Tensor, qvel: Tensor, rows: Tensor | None = None, inputs: Mapping[str, Tensor] | None = None
    ) -> None:
        """Reset all rows, or those where `rows` [B] is true; also clears warm starts and warnings.

        As in Gymnasium, derived quantities are computed at once, and the first step's solver is warm-started from them.
        """
        chosen = None if rows is None else rows.numpy()
        self._batch.reset(chosen, stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        written = slice(None) if chosen is None else chosen
        self._qpos[written] = qpos.numpy()[written]
        self._qvel[written] = qvel.numpy()[written]
        self._write(inputs, written)
        self._batch.forward(chosen)
        if self._contact_forces is not None:
            self._contact_forces[slice(None) if rows is None else rows] = 0.0  # as in Gymnasium

    def step(
        self, ctrl: Tensor, num_substeps: int, rows: Tensor | None = None, inputs: Mapping[str, Tensor] | None = None
    ) -> Tensor | None:
        """Advance all rows, or those where `rows` [B] is true; returns the rows that diverged, [B] bool, or None."""
        self._write({"ctrl": ctrl, **(inputs or {})}, slice(None) if rows is None else rows.numpy())
        failed = None
        try:
            self._batch.step(None if rows is None else rows.numpy(), num_substeps)
        except SimulationError as error:
            if self._errors.allows():
                logger.warning("%s%s", error, f" ({self._errors.count} such errors)" if self._errors.count > 1 else "")
            failed = np.zeros(self.num_rows, dtype=bool)
            failed[error.ids] = True
        self._find_contact_forces(rows)
        # MuJoCo resets a row whose state became bad at the next substep and counts a warning; a state that became bad
        # in the last substep has not been detected yet, but its sum is not finite or is huge.
        if failed is None and not self._num_bad.any() and np.isfinite(self._qpos.sum() + self._qvel.sum()):
            return None
        diverged = self._num_bad.any(axis=1) | ~np.isfinite(self._qpos.sum(1) + self._qvel.sum(1))
        return torch.from_numpy(diverged if failed is None else diverged | failed)

    def _write(self, inputs: Mapping[str, Tensor] | None, rows: Any) -> None:
        """Set fields of the data [B, ...] in some of the rows."""
        for name, value in (inputs or {}).items():
            if name not in self._inputs:
                self._inputs[name] = self._batch.bind(name)
            self._inputs[name][rows] = value.detach().numpy()[rows]

    def _find_contact_forces(self, rows: Tensor | None) -> None:
        """Compute contact forces as Gymnasium does, from the contacts of the integrator's last forward pass."""
        if self._contact_forces is None or self._scratch is None:
            return
        forces = self._contact_forces.numpy()
        for row in range(self.num_rows) if rows is None else rows.nonzero().flatten().tolist():
            self._batch.get_data(row, self._scratch)
            mujoco.mj_rnePostConstraint(self.model, self._scratch)
            forces[row] = self._scratch.cfrc_ext

    def copy_row(self, row: int) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """One row's own model and data with derived quantities computed, for rendering."""
        model, data = self._batch.get_model(row), self._batch.get_data(row)
        mujoco.mj_forward(model, data)
        return model, data


def suitable_threads(num_rows: int) -> int:
    """The number of threads: at most the CPUs available to this process, with several rows for each."""
    return max(1, min(available_cpus(), num_rows // _ROWS_PER_THREAD))
