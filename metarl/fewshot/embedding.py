"""Few-shot learners of images that one net embeds: what their settings share, and how such a learner is made."""

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
    """A learner of what is done with embeddings, and of the net that embeds."""

    conv: ConvConfig = EMBEDDING

    takes_maps: ClassVar[bool] = False  # whether it compares maps of features; otherwise vectors

    def make_adaptation(
        self, embed: ConvNet, problem: Classification, generator: torch.Generator
    ) -> ExampleAdaptation[Any]:
        """A module with the three verbs on Examples, with `embed` in it."""
        raise NotImplementedError

    def make_embedding(self, problem: Problem, generator: torch.Generator) -> ConvNet:
        """
        Raises:
            ValueError: when the problem is not to tell classes of images apart, the net's output is not of the kind
                that is compared, or it would normalise queries by a support that they are embedded without.
        """
        name = type(self).__name__
        check_context(self.conv, name)
        if not isinstance(problem, Classification):
            raise ValueError(f"agent is {name}, which tells classes of images apart; this family has none")
        if (self.conv.output == "maps") != self.takes_maps:
            allowed = "'maps'" if self.takes_maps else "'flat' or 'mean'"
            raise ValueError(f"output is {self.conv.output!r}; {name} needs {allowed}")
        return ConvNet(self.conv, problem.image_shape, fused=True, generator=generator)

    def make_learner(self, problem: Any, *, num_iterations: int, generator: torch.Generator) -> AmortisedLearner:
        """
        Raises:
            ValueError: as `make_embedding`.
        """
        adaptation = self.make_adaptation(self.make_embedding(problem, generator), problem, generator)
        adaptation.to(generator.device)
        return AmortisedLearner(self, adaptation, problem, num_iterations)
