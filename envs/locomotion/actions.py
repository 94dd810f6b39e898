"""Actions of robots with position servos: changes of a pose, rather than positions in the whole range of a joint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class AroundPose:
    """Controls that lie around a pose: pose + scale x action, for a family's `act`.

    The mean action of a new policy then is the pose itself, such as the one in which a robot stands. MuJoCo clips
    controls to the actuators' ranges.
    """

    pose: str | Sequence[float] = "home"  # name of a keyframe of the file, whose controls are the pose; or the controls
    scale: float | Sequence[float] = 0.5  # change of the controls that an action of one makes: one number, or one each

    def __call__(self, physics: Any, action: Tensor, task: Any) -> Tensor:
        """Controls [B, nu] for actions [B, nu] from -1 to 1.

        Raises:
            ValueError: for a keyframe that the model lacks.
        """
        if isinstance(self.pose, str):
            pose = physics.controls(self.pose)
        else:
            pose = torch.as_tensor(self.pose, dtype=physics.qpos.dtype, device=physics.qpos.device)
        if isinstance(self.scale, (int, float)):
            return pose + self.scale * action
        return pose + action * torch.as_tensor(self.scale, dtype=pose.dtype, device=pose.device)
