"""A word about observations of a scale that networks learn little from, such as millimetres in place of metres."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from torch import Tensor

from metarl.records import Trajectory

LARGEST, SMALLEST = 15.0, 0.003  # root mean squares; the robots' own observations, but the humanoid's, lie within


class ScaleCheck:
    """Looks at the first trajectory that an agent without normalised observations collects.

    config: an agent's; only one whose `normalise_obs` is False is ever spoken of.
    """

    def __init__(self, config: Any) -> None:
        self._pending = getattr(config, "normalise_obs", True) is False

    def __call__(self, trajectory: Trajectory[Any]) -> None:
        """One line on stderr if the observations are badly scaled, at the first call alone."""
        if not self._pending:
            return
        self._pending = False
        if line := scale_warning(trajectory.obs[trajectory.valid]):
            with contextlib.suppress(OSError, ValueError):  # a stderr that is full or closed ends no training
                print(f"metarl: {line}", file=sys.stderr)


def scale_warning(obs: Tensor) -> str | None:
    """What to say of observations [K, O]; None where their scale is fine, or they are all zero."""
    size = obs.double().square().mean(0).sqrt()  # [O]
    if not bool(size.isfinite().all()) or not len(size):
        return None
    entry = int(size.argmax())
    largest = float(size[entry])
    if largest == 0 or SMALLEST <= largest <= LARGEST:
        return None
    return (
        f"the largest of the {len(size)} observed numbers, entry {entry}, has a root mean square of {largest:.3g}; "
        "networks learn best where it is near 1, which --agent.normalise-obs True sees to"
    )
