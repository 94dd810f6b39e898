"""Gymnasium's own MuJoCo environments as an engine: the same body from another file, stepped by other code.

It shows that a policy does not depend on our simulation. Gymnasium's environment gives its model, its stepping and its
contact forces; observations, rewards and ends are the family's own functions of its state. One environment per row, in
a Python loop: slow, and for evaluations only.
"""

# MuJoCo's compiled module has no type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.simulators.model import (
    check_fields,
    check_models,
    differing_fields,
    load_model,
    model_field,
    no_engine_warnings,
    with_fields,
)

ENVIRONMENTS = {
    body: f"{name}-v5"
    for body, name in {
        "ant": "Ant",
        "half_cheetah": "HalfCheetah",
        "hopper": "Hopper",
        "humanoid": "Humanoid",
        "swimmer": "Swimmer",
        "walker2d": "Walker2d",
    }.items()
}  # ids by the name of the body's file

_BAD = [
    int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{what}")) for what in ("QPOS", "QVEL", "QACC", "CTRL")
]  # after which MuJoCo has reset a simulation, or ignored its controls


class GymnasiumPhysics:
    """B simulations in as many environments of Gymnasium; implements `envs.simulators.Physics`."""

    asynchronous = False

    def __init__(self, body: Path, num_rows: int) -> None:
        """Make the environments whose robot is that of a body file of ours."""
        self.num_rows = num_rows
        self.device = torch.device("cpu")
        identity = ENVIRONMENTS[body.stem]
        with no_engine_warnings():  # Gymnasium's files have an attribute that MuJoCo has given up
            self._envs: list[Any] = [
                gymnasium.make(identity, disable_env_checker=True).unwrapped for _ in range(num_rows)
            ]
        self._body = load_model(body)  # of which the models of tasks are variants
        self.model: Any = copy.copy(self._envs[0].model)
        self.timestep = float(self.model.opt.timestep)
        self.initial_qpos = torch.from_numpy(self._envs[0].init_qpos.copy())
        self._fields: dict[str, Tensor] = {}  # of the data, in use: [B, ...]
        self.qpos, self.qvel = self.data("qpos"), self.data("qvel")

    def data(self, name: str) -> Tensor:
        """A field of MuJoCo's data (e.g. "xpos") [B, ...], live, see `Physics.data`.

        Raises:
            ValueError: for a field that MuJoCo's data lacks.
        """
        if name not in self._fields:
            value = getattr(self._envs[0].data, name, None)
            if not isinstance(value, np.ndarray):
                raise ValueError(f"{name!r} is not a field of MuJoCo's data: use a name such as 'xpos' or 'sensordata'")
            self._fields[name] = torch.zeros(self.num_rows, *value.shape, dtype=torch.float64)
            self._read()
        return self._fields[name]

    def field(self, name: str) -> Tensor:
        """The body's own value of a model field (e.g. "body_mass" or "opt.gravity"); a copy."""
        return torch.from_numpy(np.array(model_field(self.model, name), dtype=np.float64))

    def set_fields(self, fields: Mapping[str, Tensor]) -> None:
        """Give each row its own values [B, ...] of some model fields.

        Raises:
            ValueError: as `envs.simulators.model.check_fields`.
        """
        check_fields(self.model, self.num_rows, fields)
        for row, env in enumerate(self._envs):
            env.model = with_fields(env.model, fields, row)

    def set_models(self, models: Sequence[mujoco.MjModel]) -> None:
        """Give each row the numbers in which its model differs from the body's; the rest is Gymnasium's.

        Raises:
            ValueError: as `envs.simulators.model.check_models`.
        """
        check_models(self._body, self.num_rows, models)
        for env in self._envs:
            env.model = self.model
        self.set_fields(differing_fields(self._body, models))

    def reset(
        self, qpos: Tensor, qvel: Tensor, rows: Tensor | None = None, inputs: Mapping[str, Tensor] | None = None
    ) -> None:
        """Reset all rows, or those where `rows` [B] is true, by Gymnasium's `set_state`."""
        _check_inputs(inputs)
        for row in self._chosen(rows):
            env = self._envs[row]
            mujoco.mj_resetData(env.model, env.data)
            env.set_state(qpos[row].numpy(), qvel[row].numpy())
        self._read()

    def step(
        self, ctrl: Tensor, num_substeps: int, rows: Tensor | None = None, inputs: Mapping[str, Tensor] | None = None
    ) -> Tensor | None:
        """Advance all rows, or those where `rows` [B] is true, by Gymnasium's `do_simulation`."""
        _check_inputs(inputs)
        controls = ctrl.detach().numpy()
        for row in self._chosen(rows):
            self._envs[row].do_simulation(controls[row], num_substeps)
        self._read()
        bad = [any(env.data.warning[kind].number for kind in _BAD) for env in self._envs]
        diverged = torch.tensor(bad) | ~(self.qpos.sum(1) + self.qvel.sum(1)).isfinite()
        return diverged if bool(diverged.any()) else None

    def copy_row(self, row: int) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """One row's own model and data with derived quantities computed, for rendering."""
        model, data = self._envs[row].model, copy.copy(self._envs[row].data)
        mujoco.mj_forward(model, data)
        return model, data

    def _chosen(self, rows: Tensor | None) -> Sequence[int]:
        return range(self.num_rows) if rows is None else rows.nonzero().flatten().tolist()

    def _read(self) -> None:
        """Read all fields in use."""
        for name, values in self._fields.items():
            for row, env in enumerate(self._envs):
                values[row] = torch.from_numpy(getattr(env.data, name))


def _check_inputs(inputs: Mapping[str, Tensor] | None) -> None:
    if inputs:
        raise ValueError(f"Gymnasium's environments take controls only; {', '.join(inputs)} are given")
