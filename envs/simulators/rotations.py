"""Rotations of batches of vectors by unit quaternions (w, x, y, z), as MuJoCo writes them."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(quaternion: Tensor, vector: Tensor) -> Tensor:
    """Vectors [..., 3] of a rotated frame, given in its own axes, as the world sees them; quaternion [..., 4]."""
    scalar, axis = quaternion[..., :1], quaternion[..., 1:]
    twice = 2 * torch.linalg.cross(axis, vector)
    return vector + scalar * twice + torch.linalg.cross(axis, twice)


def rotate_back(quaternion: Tensor, vector: Tensor) -> Tensor:
    """Vectors [..., 3] of the world in the axes of a rotated frame: the inverse of `rotate`."""
    return rotate(torch.cat([quaternion[..., :1], -quaternion[..., 1:]], -1), vector)


def yaw_of(quaternion: Tensor) -> Tensor:
    """The direction of a frame's x axis over the ground, for rotations [..., 4]: angle from -pi to pi, [...] rad."""
    w, x, y, z = quaternion.unbind(-1)
    return torch.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def about_vertical(angle: Tensor) -> Tensor:
    """The rotations [..., 4] by angles [...] rad about the vertical."""
    zero = torch.zeros_like(angle)
    return torch.stack([(angle / 2).cos(), zero, zero, (angle / 2).sin()], -1)
