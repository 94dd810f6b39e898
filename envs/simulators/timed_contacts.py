"""How long geoms have been in the air: a clock for each sensor of contacts, beside an engine's own data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from envs.rows import where_row
from envs.simulators import Physics
from envs.simulators.physics_around import PhysicsAround

AIR_TIME = "geom_air_time"  # name of the field that `TimedContacts` adds to the data


class TimedContacts(PhysicsAround):
    """Another engine's simulations with the field `AIR_TIME` [B, C]; implements `envs.simulators.Physics`.

    It holds the seconds since each of C geoms last touched anything: zero while it touches, and when an episode starts.
    Contacts are looked at after each call of `step`.
    """

    def __init__(self, physics: Physics, found: Sequence[int]) -> None:
        """found: the places in sensordata that say whether the geoms touch anything."""
        super().__init__(physics)
        self._found = torch.tensor(found, device=physics.device)
        self._air_time = torch.zeros(physics.num_rows, len(found), device=physics.device)

    def data(self, name: str) -> Tensor:
        return self._air_time if name == AIR_TIME else self._physics.data(name)

    def reset(
        self, qpos: Tensor, qvel: Tensor, rows: Tensor | None = None, inputs: Mapping[str, Tensor] | None = None
    ) -> None:
        """Reset all rows, or those where `rows` [B] is true, and their clocks."""
        self._physics.data("sensordata")  # engines fill a field from the first time on that it is asked for
        self._physics.reset(qpos, qvel, rows, inputs)
        self._set(torch.zeros_like(self._air_time), rows)

    def step(
        self, ctrl: Tensor, num_substeps: int, rows: Tensor | None = None, inputs: Mapping[str, Tensor] | None = None
    ) -> Tensor | None:
        """Advance all rows, or those where `rows` [B] is true; returns the rows that diverged, [B] bool, or None."""
        diverged = self._physics.step(ctrl, num_substeps, rows, inputs)
        touches = self._physics.data("sensordata")[:, self._found] > 0
        self._set((self._air_time + num_substeps * self.timestep).masked_fill(touches, 0.0), rows)
        return diverged

    def _set(self, values: Tensor, rows: Tensor | None) -> None:
        self._air_time.copy_(values if rows is None else where_row(rows, values, self._air_time))
