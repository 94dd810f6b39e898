"""ProMP: proximal meta-policy search, which learns where policy-gradient steps should start from.

Rothfuss, Lee, Clavera, Asfour, Abbeel. ProMP: proximal meta-policy search (2019).

The learner is that of agents/maml.py with three settings changed: the inner objective is the likelihood ratio, whose
second derivatives estimate those of the return with low variance; the outer objective is clipped and climbed by Adam
for several epochs; and the policies that the inner steps start from are held near those that sampled their data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agents.maml import MAMLTRPOConfig
from agents.meta_objective import InnerObjective


@dataclass(frozen=True)
class ProMPConfig(MAMLTRPOConfig):
    """Settings of ProMP, those of its authors' runs on MuJoCo."""

    inner_objective: InnerObjective = "likelihood_ratio"
    outer: Literal["trust_region", "clipped", "plain"] = "clipped"
    kl_penalty: float = 5e-4
