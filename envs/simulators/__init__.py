"""Physics engines behind one interface: `cpu` steps MuJoCo's C engine on native threads.

Importing this package imports no simulator; `envs.simulators.cpu` does. What it does is choose how MuJoCo renders:
MuJoCo reads the variable MUJOCO_GL once, when it is imported, and its default needs a display.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor


class Physics(Protocol):
    """B simulations of one body, advanced together.

    `qpos` and `qvel` are live: every call of `reset` and `step` changes them in place, so whoever wants to keep a
    value clones it. Their dtype is the engine's own (float64 for MuJoCo's C engine).
    """

    num_rows: int  # B
    device: torch.device
    timestep: float  # seconds of one substep
    qpos: Tensor  # [B, nq] generalised positions, MuJoCo's order and units
    qvel: Tensor  # [B, nv] generalised velocities
    initial_qpos: Tensor  # [nq] the position the body file describes

    def field(self, name: str) -> Tensor:
        """The body's own value of a model field, named as in `set_fields`; a copy."""
        ...

    def set_fields(self, fields: Mapping[str, Tensor]) -> None:
        """Give each row its own physics: MuJoCo's field names ("body_mass", "opt.gravity") to values [B, ...].

        Constants that MuJoCo derives from them follow. A field not named keeps its value.
        """
        ...

    def reset(self, qpos: Tensor, qvel: Tensor, rows: Tensor | None = None) -> None:
        """Start all rows, or those where `rows` [B] (bool) is true, afresh from qpos [B, nq] and qvel [B, nv]."""
        ...

    def step(self, ctrl: Tensor, num_substeps: int, rows: Tensor | None = None) -> Tensor | None:
        """Advance all rows, or those where `rows` [B] is true, with ctrl [B, nu] held for `num_substeps`.

        Returns the rows that diverged, [B] bool, or None when none did. Their state is without meaning until `reset`.
        """
        ...


def has_display() -> bool:
    """Whether a window can be opened on this machine."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _choose_rendering() -> None:
    """Without a display, render by EGL where its library is present; a choice of the user's own stands."""
    if has_display() or os.environ.get("MUJOCO_GL"):
        return
    try:
        ctypes.CDLL("libEGL.so.1")
    except OSError:
        return  # asking for a backend that is missing would break the import of MuJoCo itself
    os.environ["MUJOCO_GL"] = "egl"


_choose_rendering()
