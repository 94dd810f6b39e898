"""ANIL: MAML in which only the last layer adapts; the features before it are computed once per set.

Raghu et al. Rapid learning or feature reuse? Towards understanding the effectiveness of MAML (2020).

The adaptation is in metarl/adaptation/head.py, because any variant of MAML may adapt only the last layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.fewshot.methods.maml import MAMLConfig


@dataclass(frozen=True)
class ANILConfig(MAMLConfig):
    """ANIL: MAML in which only the last layer adapts."""

    adapted: Literal["all", "head", "body", "bias"] = "head"  # parameters that adapt; "head": the last layer
