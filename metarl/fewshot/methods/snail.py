"""SNAIL: temporal convolutions over the examples, and attention to them.

Mishra et al. A simple neural attentive meta-learner (2018).

The reading of examples, and its deviations, are in metarl/fewshot/example_reader.py; the memory is in
metarl/adaptation/snail.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from metarl.adaptation.snail import SnailConfig
from metarl.fewshot.example_reader import SequenceLearnerConfig

OMNIGLOT_SNAIL = SnailConfig(filters=(128, 128), key_sizes=(64, 256, 512), value_sizes=(32, 128, 256), length=6)


@dataclass(frozen=True)
class SnailLearnerConfig(SequenceLearnerConfig):
    """SNAIL: temporal convolutions over the examples, and attention to them."""

    snail: SnailConfig = OMNIGLOT_SNAIL  # settings of the memory; the length covers the support and a query

    def make_memory(self, input_size: int, generator: torch.Generator) -> Any:
        return self.snail.make(input_size, generator=generator)
