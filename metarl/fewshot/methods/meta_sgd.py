"""Meta-SGD: MAML with learned step sizes, one per parameter entry.

Li et al. Meta-SGD: learning to learn quickly for few-shot learning (2017).

The step sizes are in metarl/adaptation/step_sizes.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.fewshot.methods.maml import MAMLConfig


@dataclass(frozen=True)
class MetaSGDConfig(MAMLConfig):
    """Meta-SGD: MAML with a learned step size per parameter entry."""

    step_sizes: Literal["fixed", "per_parameter", "per_step"] = "per_parameter"  # kind of step size: fixed or learned
