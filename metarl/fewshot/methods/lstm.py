"""An LSTM that reads the examples, with late labels: the simplest memory-based learner.

Hochreiter, Younger, Conwell. Learning to learn using gradient descent (2001).

The reading of examples, and its deviations, are in metarl/fewshot/example_reader.py; the memory is in
metarl/adaptation/recurrent.py.

Deviations: 1. it reads features of a convolutional net; the paper's reads pixels (`embedding` "pixels").
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from metarl.adaptation.recurrent import RecurrentConfig
from metarl.checks import widths
from metarl.fewshot.example_reader import SequenceLearnerConfig


@dataclass(frozen=True)
class LSTMConfig(SequenceLearnerConfig):
    """An LSTM or GRU, as in RL2."""

    hidden_size: int = 200  # number of hidden units
    recurrent: RecurrentConfig = field(default_factory=lambda: RecurrentConfig("lstm"))  # settings of the cell
    late_labels: bool = True  # whether an example's label comes with the next one

    def __post_init__(self) -> None:
        super().__post_init__()
        widths(self, "hidden_size")

    def make_memory(self, input_size: int, generator: torch.Generator) -> Any:
        return self.recurrent.make(input_size, self.hidden_size, generator=generator)
