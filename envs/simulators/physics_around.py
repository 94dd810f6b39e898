"""The common parts of physics that add something to another engine's simulations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from envs.simulators import Physics


class PhysicsAround:
    """Base class: another engine's simulations, which `step` and the others of `Physics` are passed on to."""

    def __init__(self, physics: Physics) -> None:
        self._physics = physics
        self.num_rows, self.device, self.asynchronous = physics.num_rows, physics.device, physics.asynchronous
        self.timestep, self.initial_qpos = physics.timestep, physics.initial_qpos

    def __getattr__(self, name: str) -> Any:
        """Attributes beyond the interface, e.g. `copy_row`."""
        if name == "_physics":  # not set yet
            raise AttributeError(name)
        return getattr(self._physics, name)

    @property
    def qpos(self) -> Tensor:
        return self._physics.qpos

    @property
    def qvel(self) -> Tensor:
        return self._physics.qvel

    def data(self, name: str) -> Tensor:
        return self._physics.data(name)

    def field(self, name: str) -> Tensor:
        return self._physics.field(name)

    def set_fields(self, fields: Mapping[str, Tensor]) -> None:
        self._physics.set_fields(fields)

    def set_models(self, models: Sequence[Any]) -> None:
        self._physics.set_models(models)

    def reset(
        self, qpos: Tensor, qvel: Tensor, rows: Tensor | None = None, inputs: Mapping[str, Tensor] | None = None
    ) -> None:
        self._physics.reset(qpos, qvel, rows, inputs)

    def step(
        self, ctrl: Tensor, num_substeps: int, rows: Tensor | None = None, inputs: Mapping[str, Tensor] | None = None
    ) -> Tensor | None:
        return self._physics.step(ctrl, num_substeps, rows, inputs)
