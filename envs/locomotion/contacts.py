"""Contact forces as observed and penalised in Gymnasium's v5 environments.

A force and torque on each body except the world, `cfrc_ext`, which MuJoCo computes on request after a step; see
`envs.simulators.make_physics`. At the start of an episode they are zero, as in Gymnasium.
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
    """The observation and the cost of a robot's contact forces."""

    num_bodies: int  # number of bodies without the world
    weight: float  # weight of the squared forces in the cost
    limit: float = math.inf  # limit to which forces are clipped first, in absolute value
    max_cost: float = math.inf  # largest cost per step

    @property
    def num_observed(self) -> int:
        return 6 * self.num_bodies

    def observed(self, state: State) -> Tensor:
        """The observed forces [B, 6 x bodies], in the engine's dtype."""
        return self._forces(state)[:, 1:].flatten(1)

    def cost(self, state: State) -> Tensor:
        """[B]"""
        return (self.weight * self._forces(state).square().sum(dim=(1, 2))).clamp(max=self.max_cost)

    def _forces(self, state: State) -> Tensor:
        return torch.clamp(state.cfrc_ext, -self.limit, self.limit)


ANT_CONTACTS = Contacts(num_bodies=13, weight=5e-4, limit=1.0)
HUMANOID_CONTACTS = Contacts(num_bodies=13, weight=5e-7, max_cost=10.0)
