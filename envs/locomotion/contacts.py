"""Contact forces as Gymnasium's v5 environments observe them and have them paid for.

A force and torque on each body but the world, `cfrc_ext`, which MuJoCo computes when it is asked to after a step; see
`envs.simulators.make_physics`. At the start of an episode they are zero, as there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from envs.simulators.state import State

FIELD = "cfrc_ext"  # MuJoCo's name: [B, bodies, 6]


@dataclass(frozen=True)
class Contacts:
    """How a robot's contact forces are observed and paid for."""

    num_bodies: int  # without the world
    weight: float  # of the squared forces, as a cost
    limit: float = math.inf  # forces are clipped to ± this, before all else
    max_cost: float = math.inf  # largest cost per step

    @property
    def num_observed(self) -> int:
        return 6 * self.num_bodies

    def observed(self, state: State) -> Tensor:
        """[B, 6 x bodies] in the engine's dtype."""
        return self._forces(state)[:, 1:].flatten(1)

    def cost(self, state: State) -> Tensor:
        """[B]"""
        return (self.weight * self._forces(state).square().sum(dim=(1, 2))).clamp(max=self.max_cost)

    def _forces(self, state: State) -> Tensor:
        return torch.clamp(state.cfrc_ext, -self.limit, self.limit)


ANT_CONTACTS = Contacts(num_bodies=13, weight=5e-4, limit=1.0)
HUMANOID_CONTACTS = Contacts(num_bodies=13, weight=5e-7, max_cost=10.0)
