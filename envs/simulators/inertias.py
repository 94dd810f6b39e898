"""Inertias that no body can have, as files have them, and the nearest that one can."""

from __future__ import annotations

from typing import Any

import numpy as np

_THINNEST = 1e-3  # smallest principal inertia of a body, relative to its largest
_SLACK = 1e-6  # relative, by which a sum exceeds the inertia that it must reach


def possible_inertia(inertia: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """The inertia of a body that is nearest to a symmetric matrix [3, 3], about the same axes; None if that is one.

    Principal inertias are positive, and none is larger than the other two together. The largest is kept.

    Raises:
        ValueError: when no principal inertia is positive.
    """
    principal, axes = np.linalg.eigh(inertia)  # in ascending order
    largest = principal[2]
    if largest <= 0:
        raise ValueError("no principal inertia is positive; must be")
    if principal[0] > 0 and principal[0] + principal[1] >= largest:
        return None
    first, second = np.maximum(principal[:2], _THINNEST * largest)
    lacking = max(0.0, largest - first - second) / 2 + _SLACK * largest
    possible = np.array([first + lacking, min(second + lacking, largest), largest])
    return axes @ np.diag(possible) @ axes.T
