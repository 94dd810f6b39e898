"""Common settings of image learners built on an embedding net, and how such a learner is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from metarl.fewshot.amortised import AmortisedLearner, ExampleAdaptation
from metarl.fewshot.normalising import check_context
from metarl.fewshot.outer_step import OuterConfig
from metarl.fewshot.problem import Classification, Problem
from metarl.nets.conv import ConvConfig, ConvNet

EMBEDDING = ConvConfig(normalisation="running")


@dataclass(frozen=True)
class EmbeddingConfig(OuterConfig):
    """The configuration of a learner with an embedding net."""

    conv: ConvConfig = EMBEDDING  # settings of the embedding net

    takes_maps: ClassVar[bool] = False  # whether it compares feature maps rather than vectors

    def make_adaptation(
        self, embed: ConvNet, problem: Classification, generator: torch.Generator
    ) -> ExampleAdaptation[Any]:
        """A module with prior, adapt and predict on Examples that contains `embed`."""
        raise NotImplementedError

    def make_embedding(self, problem: Problem, generator: torch.Generator) -> ConvNet:
        """A fresh embedding net.

        Raises:
            ValueError: when the problem is not image classification, the net's output has the wrong form, or its
                    normalisation needs the support, which is not available when queries are embedded.
        """
        name = type(self).__name__
        check_context(self.conv, name)
        if not isinstance(problem, Classification):
            raise ValueError(f"agent is {name}, an image classifier; this family has no image classes")
        if (self.conv.output == "maps") != self.takes_maps:
            allowed = "'maps'" if self.takes_maps else "'flat' or 'mean'"
            raise ValueError(f"output is {self.conv.output!r}; must be {allowed} for {name}")
        return ConvNet(self.conv, problem.image_shape, fused=True, generator=generator)

    def make_learner(self, problem: Any, *, num_iterations: int, generator: torch.Generator) -> AmortisedLearner:
        """A fresh learner.

        Raises:
            ValueError: as for `make_embedding`.
        """
        adaptation = self.make_adaptation(self.make_embedding(problem, generator), problem, generator)
        adaptation.to(generator.device)
        return AmortisedLearner(self, adaptation, problem, num_iterations)
