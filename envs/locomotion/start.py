"""Where episodes of locomotion start: the body's own position with noise, as in Gymnasium."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StartNoise:
    """Noise on every coordinate: uniform within ± `scale`, but for velocities drawn from N(0, scale²) if `gaussian`."""

    scale: float
    gaussian: bool = False

    def add(self, qpos: Tensor, qvel: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Positions [B, nq] and velocities [B, nv] with noise."""
        draw = torch.randn if self.gaussian else _uniform
        position = _uniform(qpos.shape, generator=generator, dtype=qpos.dtype, device=qpos.device)
        velocity = draw(qvel.shape, generator=generator, dtype=qvel.dtype, device=qvel.device)
        return qpos + self.scale * position, qvel + self.scale * velocity


def _uniform(shape: torch.Size, *, generator: torch.Generator, dtype: torch.dtype, device: torch.device) -> Tensor:
    return 2 * torch.rand(shape, generator=generator, dtype=dtype, device=device) - 1
