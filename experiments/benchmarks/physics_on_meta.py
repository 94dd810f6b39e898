"""The GPU's engine without its simulation: what it asks torch for, on the device "meta"."""

# MuJoCo's compiled module has no type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from envs.simulators.gpu import GpuPhysics
from envs.simulators.model import load_model
from experiments.benchmarks.launch_counter import META


class PhysicsOnMeta(GpuPhysics):
    """B simulations that stand still; each graph of the engine is one operation."""

    def __init__(self, body: Path, num_rows: int) -> None:
        model = load_model(body)
        self.model, self.num_rows, self.device = model, num_rows, META
        self.timestep = float(model.opt.timestep)
        self.initial_qpos = torch.empty(model.nq, device=META)
        self._nominal: dict[str, Tensor] = {}
        self._derived: dict[str, Tensor] = {}
        self._reset_rows = torch.empty(num_rows, dtype=torch.bool, device=META)
        self._warp_reset_rows: Any = None
        sizes = {
            "time": (),
            "qpos": (model.nq,),
            "qvel": (model.nv,),
            "act": (model.na,),
            "qacc_warmstart": (model.nv,),
        }
        self._state = [torch.empty(num_rows, *size, device=META) for size in sizes.values()]
        self.qpos, self.qvel = self._state[1], self._state[2]
        self._inputs = {"ctrl": torch.empty(num_rows, model.nu, device=META)}
        self._qacc = torch.empty(num_rows, model.nv, device=META)
        self._last_overflow = torch.empty(num_rows, dtype=torch.int32, device=META)
        self._overflow = torch.empty_like(self._last_overflow)

    def set_fields(self, fields: Mapping[str, Tensor]) -> None:
        pass

    def _run(self, key: Hashable, operations: Callable[[], None]) -> None:
        self.qpos.zero_()
