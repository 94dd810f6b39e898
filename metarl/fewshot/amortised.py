"""Few-shot learners that absorb examples: one pass over the support in place of gradient steps.

What they learn is how to absorb and how to compare: an embedding and a distance, a sequence model, a generator of
weights. Whatever has the three verbs on Examples can be learned by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from metarl.fewshot.episode import FewShotEpisode, num_ways
from metarl.fewshot.normalising import in_evaluation, normalisation_facts
from metarl.fewshot.outer_step import OuterConfig, OuterStep
from metarl.fewshot.problem import Classification, Problem
from metarl.fewshot.seen_classes import one_hot
from metarl.records import Examples
from metarl.rl.losses import mean_over_examples

S = TypeVar("S")


class ExampleAdaptation(nn.Module, Generic[S]):
    """An `Adaptation` (metarl/protocols.py) whose data are labelled examples, as a module; subclasses have the verbs.

    With classes, it predicts once some example of them was absorbed.
    """

    @property
    def adapted_parameters(self) -> int:
        """Numbers of the net that are written for a task, without those of each class."""
        return 0

    def criterion(self, problem: Problem) -> Callable[[Tensor, Tensor], Tensor]:
        """The losses [..., Q] of predictions [..., Q, out] and labels y that it is trained on."""
        return problem.losses

    def prior(self, num_tasks: int) -> S:
        raise NotImplementedError

    def adapt(self, state: S, context: Examples) -> S:
        raise NotImplementedError

    def predict(self, state: S, x: Tensor) -> Tensor:
        raise NotImplementedError


class AmortisedLearner:
    """Learns an adaptation by Adam on the loss of the queries, given the support."""

    def __init__(
        self, config: OuterConfig, adaptation: ExampleAdaptation[Any], problem: Problem, num_iterations: int
    ) -> None:
        self.problem, self.adaptation = problem, adaptation
        self.losses = adaptation.criterion(problem)
        self.outer_step = OuterStep(config, adaptation, num_iterations)

    @property
    def point(self) -> str:
        return "shot" if isinstance(self.problem, Classification) else "example"

    @property
    def facts(self) -> Mapping[str, Any]:
        """How the net normalises, and how many numbers of it are written for a task, beside those of each class."""
        return {**normalisation_facts(self.adaptation), "adapted_parameters": self.adaptation.adapted_parameters}

    def update(self, experience: FewShotEpisode, generator: torch.Generator) -> dict[str, float]:
        """One step of Adam; the score that is logged is that before it."""
        query = experience.query
        loss, prediction = self._judged(experience.support, query, generator)
        norm = self.outer_step(loss)
        score = self.problem.score(prediction.detach(), query).mean()
        return {
            f"train/query_{self.problem.measure.name}": float(score),
            "train/loss": float(loss.detach()),
            "train/grad_norm": norm,
        }

    def _judged(self, support: Examples, query: Examples, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The loss of a batch of tasks, and what was predicted for their queries."""
        state = self.adaptation.adapt(self.adaptation.prior(len(support)), support)
        prediction = self.adaptation.predict(state, query.x)
        return mean_over_examples(self.losses(prediction, query.y), query.valid).mean(), prediction

    def predictions(self, episode: FewShotEpisode, num_points: int) -> Tensor:
        """After 0, 1, ... shots of all classes, or examples of a function: [num_points + 1, N, Q, out].

        Each point absorbs its part of the support at once, as training does; before any shot all classes are equally
        likely, as their numbers mean nothing yet. A support with padding, whose classes have different numbers of
        shots, is one point.

        Raises:
            ValueError: when the support has fewer.
        """
        support, query = episode.support, episode.query
        size = support.x.shape[1] if support.valid is not None else num_ways(episode) if self.point == "shot" else 1
        if num_points * size > support.x.shape[1]:
            raise ValueError(f"num_points is {num_points}; the support has {support.x.shape[1] // size} {self.point}s")
        prior = self.adaptation.prior(len(support))
        with torch.no_grad(), in_evaluation(self.adaptation):
            if isinstance(self.problem, Classification):
                theirs = one_hot(support.y, num_ways(episode), support.valid).any(1, keepdim=True)  # [N, 1, W]
                equal = query.x.new_zeros(*query.y.shape, num_ways(episode))
                predictions = [equal.masked_fill(~theirs, -torch.inf)]
            else:
                predictions = [self.adaptation.predict(prior, query.x)]
            for point in range(1, num_points + 1):
                state = self.adaptation.adapt(prior, support.map(lambda value: value[:, : point * size]))  # noqa: B023
                predictions.append(self.adaptation.predict(state, query.x)[..., : predictions[0].shape[-1]])
        return torch.stack(predictions)

    def state_dict(self) -> dict[str, Any]:
        return self.outer_step.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.outer_step.load_state_dict(state)
