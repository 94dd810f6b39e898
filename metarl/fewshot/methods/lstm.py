"""An LSTM reads the examples, whose labels come late: the plainest learner that learns by its memory.

Hochreiter, Younger, Conwell. Learning to learn using gradient descent (2001).

Reading examples, and its deviations, are in metarl/fewshot/example_reader.py; the memory is
metarl/adaptation/recurrent.py.

Deviations: 1. it sees images by way of convolutions; the paper's sees pixels, which `embedding` "pixels" gives.
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
    """An LSTM, or a GRU: the memory of RL2."""

    hidden_size: int = 200
    recurrent: RecurrentConfig = field(default_factory=lambda: RecurrentConfig("lstm"))
    late_labels: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        widths(self, "hidden_size")

    def make_memory(self, input_size: int, generator: torch.Generator) -> Any:
        return self.recurrent.make(input_size, self.hidden_size, generator=generator)
