"""Terrain as task parameters: slopes, bumps and steps of the ground, which differ from row to row on both engines.

A slope tilts the ground about the origin. For bumps and steps, the ground becomes one large height field that all rows
share, with a patch for each of some levels of each. A row's ground is moved so that the patch of its task is where the
robot starts: values are those of the nearest level. Nowhere near the start is the ground higher than the plane was.
"""

# MuJoCo's compiled module has no type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.samplers import draws
from envs.simulators.derived import Fields, Nominal, current

SLOPE, BUMPS, STEPS = "terrain_slope", "terrain_bumps", "terrain_steps"
TERRAIN = (SLOPE, BUMPS, STEPS)

CELL = 0.1  # distance of neighbouring heights, m
PATCH = (40.0, 10.0)  # size of a patch along x and y, m
TREAD = 0.3  # depth of a step, m
_STEPS_UP = 10  # steps until they go down again
_LEVELS = 12  # levels of one parameter
_LEVELS_OF_TWO = 6  # levels of each, where there are two
_THICKNESS = 1.0  # of the ground below its lowest point, m


@dataclass(frozen=True)
class Terrain:
    """The levels of bumps and steps, with a patch for each pair; () where there is no such parameter."""

    bumps: tuple[float, ...]
    steps: tuple[float, ...]

    @property
    def is_flat(self) -> bool:
        return not self.bumps and not self.steps

    @property
    def levels(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.bumps or (0.0,), self.steps or (0.0,)

    def shape_ground(self, spec: mujoco.MjSpec) -> None:
        """Make the plane of a description a height field, if the ground is not flat.

        Raises:
            ValueError: unless there is one plane in the world.
        """
        planes = [geom for geom in spec.worldbody.geoms if geom.type == mujoco.mjtGeom.mjGEOM_PLANE]
        if len(planes) != 1:
            raise ValueError(f"the world has {len(planes)} planes; must have one, for tasks with terrain")
        [ground] = planes
        if not ground.name:
            ground.name = "ground"
        if self.is_flat:
            return
        heights = self._heights()
        rows, columns = heights.shape
        low, high = float(heights.min()), float(heights.max())
        half_x, half_y = (columns - 1) * CELL / 2, (rows - 1) * CELL / 2
        size = [half_x, half_y, max(high - low, 1e-3), _THICKNESS]  # MuJoCo scales heights to these
        spec.add_hfield(name="terrain", size=size, nrow=rows, ncol=columns, userdata=heights.ravel())
        ground.type, ground.hfieldname = mujoco.mjtGeom.mjGEOM_HFIELD, "terrain"

    def place(self, model: mujoco.MjModel, fields: Fields, nominal: Nominal) -> None:
        """Replace the terrain of B tasks by the pose of the ground in each."""
        slope, bumps, steps = (fields.pop(name, None) for name in TERRAIN)
        given = next(value for value in (slope, bumps, steps) if value is not None)
        slope = torch.zeros_like(given) if slope is None else slope
        ground, own = _ground(model), nominal("geom_pos")
        x, y, z = self._from_ground_to_start(bumps, steps, slope)
        pos, quat = (current(fields, nominal, name, len(slope)).clone() for name in ("geom_pos", "geom_quat"))
        sin, cos = slope.sin(), slope.cos()
        pos[:, ground] = torch.stack([x * cos - z * sin, y, x * sin + z * cos + own[ground, 2]], 1)
        zero = torch.zeros_like(slope)
        quat[:, ground] = torch.stack([(slope / 2).cos(), zero, -(slope / 2).sin(), zero], 1)
        fields["geom_pos"], fields["geom_quat"] = pos, quat

    def _from_ground_to_start(
        self, bumps: Tensor | None, steps: Tensor | None, like: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Where the ground's centre is, seen from the start of each row's patch."""
        zero = torch.zeros_like(like)
        if self.is_flat:
            return zero, zero, zero
        index = _nearest(self.levels[0], bumps, like) * len(self.levels[1]) + _nearest(self.levels[1], steps, like)
        count = len(self.levels[0]) * len(self.levels[1])
        return zero, ((count - 1) / 2 - index) * PATCH[1], zero - max(self.levels[0])

    def _heights(self) -> np.ndarray[Any, Any]:
        """Heights over the plane [along y, along x]: the patches one after the other along y, the outer ones twice."""
        columns, rows = (round(size / CELL) for size in PATCH)
        x = (np.arange(columns + 1) - columns / 2) * CELL
        y = (np.arange(rows) - rows / 2) * CELL
        number = np.floor(np.maximum(abs(x[None, :]), abs(y[:, None])) / TREAD + 0.5)  # of steps from the start
        up = _STEPS_UP - abs(number % (2 * _STEPS_UP) - _STEPS_UP)
        random = np.random.default_rng(0)
        patches = [
            step * up - bump * random.random((rows, columns + 1)) for bump in self.levels[0] for step in self.levels[1]
        ]
        return np.concatenate([patches[0], *patches, patches[-1], patches[-1][:1]])  # none ends at a start


def terrain_of(samplers: Mapping[str, Any]) -> Terrain | None:
    """The terrain that a family's parameters need; None where none of them is one of `TERRAIN`."""
    if not any(name in samplers for name in TERRAIN):
        return None
    shaped = [name for name in (BUMPS, STEPS) if name in samplers]
    count = _LEVELS if len(shaped) == 1 else _LEVELS_OF_TWO
    levels: dict[str, tuple[float, ...]] = {BUMPS: (), STEPS: ()}
    for name in shaped:
        values = draws(samplers[name])
        levels[name] = tuple(np.unique(np.linspace(float(values.min()), float(values.max()), count)).tolist())
    return Terrain(levels[BUMPS], levels[STEPS])


def let_ground_move(model: mujoco.MjModel) -> None:
    """Let MuJoCo take the place of the ground from its own field, which it need not where that is the world's.

    Raises:
        ValueError: when the ground is not level.
    """
    ground = _ground(model)
    if model.geom_quat[ground, 0] != 1:
        raise ValueError(f"the plane {model.geom(ground).name!r} is turned; must be level, for tasks with terrain")
    model.geom_sameframe[ground] = 0


def _ground(model: mujoco.MjModel) -> int:
    """The number of the geom that is the ground."""
    kinds = (mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_HFIELD)
    return next(
        geom for geom in range(model.ngeom) if model.geom_bodyid[geom] == 0 and int(model.geom_type[geom]) in kinds
    )


def _nearest(levels: tuple[float, ...], values: Tensor | None, like: Tensor) -> Tensor:
    """The index of the level that is nearest to each value [B]."""
    if values is None:
        return torch.zeros_like(like, dtype=torch.int64)
    all_levels = torch.tensor(levels, dtype=values.dtype, device=values.device)
    return (values[:, None] - all_levels).abs().argmin(1)
