"""Sampling of directions in the plane, for the ant's and the humanoid's families.

1. "forward_backward": ±x in equal numbers. Out of distribution: directions at least 45° from both.
2. "axes": ±x and ±y. Out of distribution: the four diagonals (Lee and Chung 2021, LDM).
3. "circle": all angles. "ood" is declared only with `hold_out_diagonals`: training then excludes angles within 15° of
   the four diagonals, and "ood" consists of these.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from envs.locomotion.tasks import HeadingTasks
from envs.splits import check_split
from metarl.checks import one_of
from metarl.protocols import Split

Directions = Literal["forward_backward", "axes", "circle"]

_SECTOR = math.radians(15)  # held-out angle on each side of a diagonal
_QUARTER = math.pi / 2


def check_directions(family: Any) -> None:
    """Check a family's fields `directions` and `hold_out_diagonals`.

    Raises:
        ValueError: for unknown directions, or held-out diagonals if directions are not a circle.
    """
    one_of(family, "directions", get_args(Directions))
    if family.hold_out_diagonals and family.directions != "circle":
        raise ValueError("hold_out_diagonals is True; must be False unless directions is 'circle'")


def sample_headings(
    family: str,
    num_tasks: int,
    split: Split,
    generator: torch.Generator,
    directions: Directions,
    hold_out_diagonals: bool,
) -> HeadingTasks:
    """Directions of a split.

    Raises:
        ValueError: for an unknown split, or "ood" if it is not declared.
    """
    has_ood = directions != "circle" or hold_out_diagonals
    check_split(family, split, has_ood=has_ood, reason="" if has_ood else "hold_out_diagonals=True adds ood")
    device = generator.device
    uniform = torch.rand(num_tasks, generator=generator, device=device)
    quarter = torch.randint(4, (num_tasks,), generator=generator, device=device)
    if directions == "forward_backward":
        if split == "ood":
            side = torch.where(quarter < 2, _QUARTER, -_QUARTER)
            return _headings(side + (uniform - 0.5) * (_QUARTER - 1e-3))
        coin = (torch.randperm(num_tasks, generator=generator, device=device) + quarter[:1]) % 2
        return HeadingTasks(torch.stack((2.0 * coin - 1.0, torch.zeros_like(uniform)), dim=1))
    if directions == "axes":
        return _headings((quarter + (0.5 if split == "ood" else 0.0)) * _QUARTER)
    if not hold_out_diagonals:
        return _headings(2 * math.pi * uniform)
    centred = 2 * uniform - 1
    if split == "ood":
        return _headings(quarter * _QUARTER + _QUARTER / 2 + centred * (_SECTOR - 1e-3))
    return _headings(quarter * _QUARTER + centred * (_QUARTER / 2 - _SECTOR))


def headings_in_training(tasks: HeadingTasks, directions: Directions, hold_out_diagonals: bool) -> Tensor:
    """Whether each direction can occur in training: [N] bool."""
    x, y = tasks.direction.unbind(dim=1)
    if directions == "forward_backward":
        return y.abs() < 1e-6
    if directions == "axes":
        return torch.minimum(x.abs(), y.abs()) < 1e-6
    angle = torch.atan2(y, x) % _QUARTER
    to_diagonal = (angle - _QUARTER / 2).abs()
    return to_diagonal >= _SECTOR - 1e-5 if hold_out_diagonals else torch.ones_like(x, dtype=torch.bool)


def _headings(angle: Tensor) -> HeadingTasks:
    return HeadingTasks(torch.stack((angle.cos(), angle.sin()), dim=1))
