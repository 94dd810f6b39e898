"""ANIL: MAML whose last layer alone adapts, so that what comes before it is computed once for each set.

Raghu et al. Rapid learning or feature reuse? Towards understanding the effectiveness of MAML (2020).

The adaptation is metarl/adaptation/head.py, as any kind of MAML may be told to adapt the last layer alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.fewshot.methods.maml import MAMLConfig


@dataclass(frozen=True)
class ANILConfig(MAMLConfig):
    """ANIL: MAML whose last layer alone adapts."""

    adapted: Literal["all", "head", "body", "bias"] = "head"
