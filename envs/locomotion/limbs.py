"""Robots with longer or shorter limbs: a few dozen models compiled from one description, each once.

Limb lengths are multiplied; thickness and density stay, and masses and inertias change accordingly.
"""

# MuJoCo's compiled module has no type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import math
from collections.abc import Collection
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from envs.simulators.model import load_model


@lru_cache(maxsize=256)
def model_with_limbs(body: Path, limbs: tuple[str, ...], scale: float) -> Any:
    """The compiled model of an MJCF file with the bodies `limbs` `scale` times as long."""
    return load_model(body, partial(lengthen, limbs=limbs, scale=scale))


def lengthen(spec: mujoco.MjSpec, limbs: Collection[str], scale: float) -> None:
    """Multiply the length of capsules in the bodies `limbs`, and the positions of everything attached to them.

    Raises:
        ValueError: for a body that the description lacks.
    """
    known = {body.name for body in spec.bodies}
    for name in limbs:
        if name not in known:
            raise ValueError(f"the body has no part {name!r}: it has {', '.join(sorted(known))}")
    for body in spec.bodies:
        if body.parent is not None and body.parent.name in limbs:
            body.pos = scale * np.array(body.pos)
        if body.name not in limbs:
            continue
        for joint in body.joints:
            joint.pos = scale * np.array(joint.pos)
        if body.explicitinertial:
            _let_inertia_follow(body)
        for geom in body.geoms:
            if np.isfinite(geom.fromto[0]):
                geom.fromto = scale * np.array(geom.fromto)
                continue
            geom.pos = scale * np.array(geom.pos)
            if geom.type == mujoco.mjtGeom.mjGEOM_CAPSULE:
                geom.size = [geom.size[0], scale * geom.size[1], 0.0]


def _let_inertia_follow(body: Any) -> None:
    """Replace a body's stated inertia by the density of its capsules that gives its stated mass."""
    volume = sum(math.pi * geom.size[0] ** 2 * (2 * geom.size[1] + 4 / 3 * geom.size[0]) for geom in body.geoms)
    for geom in body.geoms:
        geom.density = body.mass / volume
    body.explicitinertial = False
    body.ipos = [math.nan] * 3  # undefined: the compiler uses the geoms
