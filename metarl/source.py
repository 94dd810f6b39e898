"""Where the outer loop's experience comes from: the contract of trials and of few-shot episodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import torch

from metarl.evaluation import Evaluation, Measure
from metarl.protocols import Split

L = TypeVar("L")
E = TypeVar("E")


class Source(Protocol[L, E]):
    """Draws experience for a learner from fresh training tasks, and meets held-out ones.

    A learner has, beside what its source asks of it, update(experience, generator), state_dict and load_state_dict.
    """

    measure: Measure  # of its adaptation curves
    unit: str  # of `amount`, such as "environment steps"
    unit_rate: str  # the same a second, in short
    score_tag: str  # the logged number, of the measure's kind, by which the best checkpoint is chosen
    num_episodes: int  # of a trial; or steps of adaptation in a curve
    num_diverged: int  # simulations so far

    def make_learner(self, config: Any, num_iterations: int) -> L:
        """A fresh learner that fits the family; ValueError where the configuration is of another kind."""
        ...

    def draw(self, learner: L) -> E:
        """Experience in fresh training tasks; FloatingPointError where it is not finite."""
        ...

    def amount(self, experience: E) -> int:
        """How much it is."""
        ...

    def metrics(self, experience: E) -> dict[str, float]:
        """What is worth logging of the last experience drawn, by tags."""
        ...

    def evaluate(
        self,
        learner: L,
        *,
        agent_name: str,
        split: Split,
        num_tasks: int,
        num_episodes: int | None,
        generator: torch.Generator,
    ) -> Evaluation:
        """The adaptation curve on fresh tasks of a split; everything random comes from the generator."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs of it beside its generators."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What a checkpoint of an older version lacks stays as it is."""
        ...
