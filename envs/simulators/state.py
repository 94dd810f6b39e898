"""What functions of batched physics read: MuJoCo's data fields by attribute, each a tensor with a row a simulation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from envs.simulators import Physics


class State:
    """One moment of B simulations: `state.qpos` [B, nq], `state.xpos` [B, nbody, 3], `state.sensordata` [B, n], ...

    Holds the fields that were asked for and no others. Those of `State.of` are live: every step of the physics changes
    them in place. As with MuJoCo's `mj_step`, fields that derive from positions and velocities are one substep behind
    these two; only after a reset they are not.
    """

    qpos: Tensor  # [B, nq] generalised positions, MuJoCo's order and units
    qvel: Tensor  # [B, nv] generalised velocities

    def __init__(self, **fields: Tensor) -> None:
        vars(self).update(fields)

    @classmethod
    def of(cls, physics: Physics, names: Iterable[str] = ()) -> State:
        """Live: positions, velocities and the fields `names`.

        Raises:
            ValueError: for a field that MuJoCo's data lacks or that is not a number a row.
        """
        return cls(**{name: physics.data(name) for name in ("qpos", "qvel", *names)})

    def copy(self, names: Iterable[str]) -> State:
        """The fields `names` as they are now."""
        return State(**{name: getattr(self, name).clone() for name in names})

    def __getattr__(self, name: str) -> Tensor:
        raise AttributeError(f"the state has no field {name!r}: it holds {', '.join(vars(self))}")
