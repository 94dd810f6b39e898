"""Physics engines behind one interface: `cpu` is MuJoCo's C engine on native threads, `gpu` is `mujoco_warp`.

The device decides which, unless an engine is asked for: `mujoco_warp` on the CPU, or Gymnasium's own environments.

Importing this package imports no simulator; `make_physics` does. The package sets MuJoCo's rendering backend, because
MuJoCo reads the variable MUJOCO_GL only when it is imported, and its default needs a display.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

# Fields of MuJoCo's data that are given to a simulation beside its state.
INPUTS = ("ctrl", "act", "mocap_pos", "mocap_quat", "xfrc_applied")

Engine = Literal["mujoco", "mujoco_warp", "gymnasium"]  # MuJoCo's C engine, the GPU's, Gymnasium's own environments


class Physics(Protocol):
    """B simulations of one body, advanced together.

    `qpos` and `qvel` are live: every call of `reset` and `step` changes them in place; clone values to keep them. Their
    dtype is the engine's own (float64 for MuJoCo's C engine).
    """

    num_rows: int  # B
    device: torch.device
    asynchronous: bool  # whether calls return early, and reading a value waits for the result
    timestep: float  # seconds of one substep
    initial_qpos: Tensor  # [nq], the initial position in the body file

    @property
    def qpos(self) -> Tensor: ...  # [B, nq] generalised positions, MuJoCo's order and units

    @property
    def qvel(self) -> Tensor: ...  # [B, nv] generalised velocities

    def data(self, name: str) -> Tensor:
        """A field of MuJoCo's data (e.g. "xpos" or "sensordata") [B, ...], live and read-only.

        Fields derived from positions and velocities are one substep behind them after `step`, and up to date after
        `reset`. The tensor is live until `set_fields` or `set_models` is called.

        Raises:
            ValueError: for a field that MuJoCo's data or the engine lacks.
        """
        ...

    def field(self, name: str) -> Tensor:
        """The body's own value of a model field, named as in `set_fields`; a copy."""
        ...

    def set_fields(self, fields: Mapping[str, Tensor]) -> None:
        """Give each row its own physics: MuJoCo's field names ("body_mass", "opt.gravity") to values [B, ...].

        Constants that MuJoCo derives from them are recomputed. A field not named keeps its value.
        """
        ...

    def set_models(self, models: Sequence[Any]) -> None:
        """Give each row its own body: B models compiled from one description with different numbers.

        `envs.simulators.model.load_model` compiles them; rows may share one. Values from `set_fields` are discarded.
        """
        ...

    def reset(
        self, qpos: Tensor, qvel: Tensor, rows: Tensor | None = None, inputs: Mapping[str, Tensor] | None = None
    ) -> None:
        """Reset all rows, or those where `rows` [B] (bool) is true, to qpos [B, nq] and qvel [B, nv].

        inputs: other values to start from, [B, ...] by the names in `INPUTS`; default: the model's own.
        """
        ...

    def step(
        self, ctrl: Tensor, num_substeps: int, rows: Tensor | None = None, inputs: Mapping[str, Tensor] | None = None
    ) -> Tensor | None:
        """Advance all rows, or those where `rows` [B] is true, with ctrl [B, nu] held for `num_substeps`.

        inputs: poses of mocap bodies and forces on bodies, [B, ...] by the names in `INPUTS`; default: unchanged.

        Returns the rows that diverged, [B] bool, or None if none did. Their state is undefined until `reset`.
        """
        ...


def make_physics(
    body: Any, num_rows: int, device: torch.device, *, contact_forces: bool = False, engine: Engine | None = None
) -> Physics:
    """`num_rows` simulations on a device, by the engine for that device, or by another.

    body: the path of an MJCF file, or a model that `envs.simulators.model.load_model` has compiled.
    contact_forces: compute the data's field "cfrc_ext" after each step, as Gymnasium does; otherwise it is undefined.

    Raises:
        ValueError: for fewer rows than one, a device without an engine, an engine that is not installed or does not
            fit the device or the body, or contact forces if the engine cannot compute them.
    """
    if num_rows < 1:
        raise ValueError(f"num_rows is {num_rows}; must be at least 1")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {str(device)!r}: MuJoCo simulates on 'cpu' and 'cuda'")
    if engine is None:
        engine, asked = ("mujoco" if device.type == "cpu" else "mujoco_warp"), f"device is {device.type!r}"
    else:
        asked = f"engine is {engine!r}"
    if engine == "mujoco_warp":
        if contact_forces:
            raise ValueError(f"contact forces (MuJoCo's cfrc_ext) are not computed by mujoco_warp: {asked}")
        check_installed(engine, asked)
        from envs.simulators.gpu import GpuPhysics  # imported here: tasks can be sampled without a simulator

        return GpuPhysics(body, num_rows, device)
    if device.type != "cpu":
        raise ValueError(f"{asked}, which simulates on the CPU only: device is {device.type!r}")
    if engine == "gymnasium":
        from envs.simulators.gymnasium_engine import ENVIRONMENTS, GymnasiumPhysics

        if not isinstance(body, Path) or body.stem not in ENVIRONMENTS:
            raise ValueError(f"{asked}, which simulates {', '.join(ENVIRONMENTS)} only: the robot is {body}")
        return GymnasiumPhysics(body, num_rows)
    from envs.simulators.cpu import CpuPhysics

    return CpuPhysics(body, num_rows, contact_forces=contact_forces)


def check_installed(engine: Engine, asked: str) -> None:
    """Check that an engine is installed; `asked` says what needs it.

    Raises:
        ValueError: when it is not.
    """
    if engine == "mujoco_warp" and importlib.util.find_spec("mujoco_warp") is None:
        raise ValueError(f"{asked}, but mujoco-warp is not installed: pip install 'metarl[gpu]'")


def has_display() -> bool:
    """Whether a window can be opened on this machine."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _choose_rendering() -> None:
    """Without a display, render by EGL if its library is present; an existing MUJOCO_GL is kept."""
    if has_display() or os.environ.get("MUJOCO_GL"):
        return
    try:
        ctypes.CDLL("libEGL.so.1")
    except OSError:
        return  # a missing backend would break the import of MuJoCo itself
    os.environ["MUJOCO_GL"] = "egl"


_choose_rendering()
