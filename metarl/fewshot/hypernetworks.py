"""Few-shot learners whose net is written for each task by another net: scales and shifts, or whole layers.

Ha, Dai, Le. HyperNetworks (2017). Perez et al. FiLM: visual reasoning with a general conditioning layer (2018).
Requeima et al. Fast and flexible multi-task classification using conditional neural adaptive processes (2019).

Deviations: those of metarl/adaptation/hypernetwork.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from metarl.adaptation.hypernetwork import FilmAdaptation, WrittenLayersAdaptation
from metarl.fewshot.embedding import EmbeddingConfig
from metarl.fewshot.problem import Classification
from metarl.nets.conv import ConvNet


@dataclass(frozen=True)
class WriterConfig(EmbeddingConfig):
    """What learners whose net is written for the task share."""

    hidden_size: int = 64  # of the nets that write, and of the layer that is written
    code_size: int = 64  # of what the examples say of the task

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("hidden_size", "code_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True)
class FilmConfig(WriterConfig):
    """FiLM: scales and shifts of a net's features are written for the task, and the last layer class by class."""

    encoder_blocks: int = 2  # of the net that reads the task; `code_size` is the number of its filters

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder_blocks < 1:
            raise ValueError(f"encoder_blocks is {self.encoder_blocks}; it must be at least 1")

    def make_adaptation(self, embed: ConvNet, problem: Classification, generator: torch.Generator) -> nn.Module:
        reader = replace(
            self.conv, filters=self.code_size, num_blocks=self.encoder_blocks, num_downsampled=None, output="mean"
        )
        return FilmAdaptation(
            embed,
            ConvNet(reader, problem.input_shape, fused=True, generator=generator),
            image_shape=problem.input_shape,
            code_size=self.code_size,
            hidden_size=self.hidden_size,
            generator=generator,
        )


@dataclass(frozen=True)
class HypernetworkConfig(WriterConfig):
    """Hypernetwork: a hidden layer is written for the task, and the last layer class by class."""

    def make_adaptation(self, embed: ConvNet, problem: Classification, generator: torch.Generator) -> nn.Module:
        return WrittenLayersAdaptation(
            embed,
            size=embed.output_size,
            code_size=self.code_size,
            hidden_size=self.hidden_size,
            generator=generator,
        )
