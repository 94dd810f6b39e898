"""The state of batched physics: MuJoCo's data fields by attribute, each a tensor with one row per simulation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor


class HasData(Protocol):
    """What has fields of MuJoCo's data, such as a `Physics`."""

    def data(self, name: str) -> Tensor: ...


class State:
    """The state of B simulations: `state.qpos` [B, nq], `state.xpos` [B, nbody, 3], `state.sensordata` [B, n], ...

    Holds only the requested fields. Those of `State.of` are live: every step of the physics changes them in place. As
    with MuJoCo's `mj_step`, fields derived from positions and velocities are one substep behind these two, except after
    a reset.
    """

    qpos: Tensor  # [B, nq] generalised positions, MuJoCo's order and units
    qvel: Tensor  # [B, nv] generalised velocities

    def __init__(self, **fields: Tensor) -> None:
        vars(self).update(fields)

    @classmethod
    def of(cls, physics: HasData, names: Iterable[str] = ()) -> State:
        """The live state: positions, velocities and the fields `names`.

        Raises:
            ValueError: for a field that MuJoCo's data lacks or that has no row per simulation.
        """
        return cls(**{name: physics.data(name) for name in ("qpos", "qvel", *names)})

    def copy(self, names: Iterable[str]) -> State:
        """A copy of the fields `names`."""
        return State(**{name: getattr(self, name).clone() for name in names})

    def __getattr__(self, name: str) -> Tensor:
        raise AttributeError(f"the state has no field {name!r}: it holds {', '.join(vars(self))}")
