"""Values excluded from training: beyond a range, or in its middle.

Tasks are drawn as fractions of a range, [0, 1). With "extrapolation", training covers the whole range, and the split
"ood" a band beyond it, a third as wide; ranges with two open ends have half of the band at each. With "interpolation",
training excludes the middle third, which is the split "ood".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from metarl.protocols import Split

Ood = Literal["extrapolation", "interpolation"]

_MARGIN = 1e-4  # fraction of a band that keeps rounded values outside the training range


def draw_shares(
    shape: Sequence[int], split: Split, ood: Ood, generator: torch.Generator, *, two_ended: bool = False
) -> Tensor:
    """Fractions of a range for the tasks of a split, [*shape] float32 on the generator's device."""
    share = torch.rand(tuple(shape), generator=generator, device=generator.device)
    if ood == "interpolation":
        if split == "ood":
            return (1 + _MARGIN + (1 - 2 * _MARGIN) * share) / 3
        outer = share * (2 / 3)
        return torch.where(outer < 1 / 3, outer, outer + 1 / 3)
    if split != "ood":
        return share
    if not two_ended:
        return 1 + (_MARGIN + (1 - _MARGIN) * share) / 3
    signed = 2 * share - 1
    distance = (_MARGIN + (1 - _MARGIN) * signed.abs()) / 6
    return torch.where(signed < 0, -distance, 1 + distance)


def in_training(shares: Tensor, ood: Ood) -> Tensor:
    """Whether each fraction can occur in training: [...] bool; with a tolerance for rounding."""
    slack = 1e-5
    inside = (shares >= -slack) & (shares <= 1 + slack)
    if ood == "interpolation":
        inside &= (shares <= 1 / 3 + slack) | (shares >= 2 / 3 - slack)
    return inside
