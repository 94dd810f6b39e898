"""A transformer that reads a task's examples and learns from them in context.

The reading of examples, and its deviations, are in metarl/fewshot/example_reader.py; the memory is in
metarl/adaptation/transformer.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from metarl.adaptation.transformer import TransformerConfig
from metarl.checks import widths
from metarl.fewshot.example_reader import SequenceLearnerConfig


@dataclass(frozen=True)
class TransformerLearnerConfig(SequenceLearnerConfig):
    """A transformer that learns in context; without position encoding, because examples are a set."""

    width: int = 128  # width of the transformer
    transformer: TransformerConfig = field(  # settings of the transformer
        default_factory=lambda: TransformerConfig(positions="none")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        widths(self, "width")
        self.transformer.check_width(self.width)

    def make_memory(self, input_size: int, generator: torch.Generator) -> Any:
        return self.transformer.make(input_size, self.width, generator=generator)
