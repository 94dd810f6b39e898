"""MANN: an LSTM with an external memory that reads the examples, with late labels.

Santoro et al. Meta-learning with memory-augmented neural networks (2016).

The reading of examples, and its deviations, are in metarl/fewshot/example_reader.py; the memory is in
metarl/adaptation/external_memory.py.

Deviations: 1. it reads features of a convolutional net; the paper's reads pixels (`embedding` "pixels").
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from metarl.adaptation.external_memory import ExternalMemoryConfig
from metarl.checks import widths
from metarl.fewshot.example_reader import SequenceLearnerConfig


@dataclass(frozen=True)
class MANNConfig(SequenceLearnerConfig):
    """Memory-augmented neural network: an LSTM with an external memory."""

    hidden_size: int = 200  # number of hidden units of the controller
    slots: ExternalMemoryConfig = field(default_factory=ExternalMemoryConfig)  # settings of the external memory
    late_labels: bool = True  # whether an example's label comes with the next one

    def __post_init__(self) -> None:
        super().__post_init__()
        widths(self, "hidden_size")

    def make_memory(self, input_size: int, generator: torch.Generator) -> Any:
        return self.slots.make(input_size, self.hidden_size, generator=generator)
