"""Few-shot learners that absorb examples in one pass over the support, without gradient steps.

They learn how to absorb and compare: an embedding and a distance, a sequence model, or a generator of weights. Any
adaptation with prior, adapt and predict on Examples can be trained this way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from metarl.fewshot.episode import FewShotEpisode, num_ways
from metarl.fewshot.normalising import absorb_shared_statistics, in_evaluation, normalisation_facts
from metarl.fewshot.outer_step import OuterConfig, OuterStep
from metarl.fewshot.problem import Classification, Problem
from metarl.fewshot.seen_classes import one_hot
from metarl.optim import flat_gradient
from metarl.records import Examples
from metarl.rl.losses import mean_over_examples

S = TypeVar("S")


class ExampleAdaptation(nn.Module, Generic[S]):
    """A module that adapts to labelled examples; subclasses define prior, adapt and predict (metarl/protocols.py).

    For classes, it can predict once it has absorbed an example.
    """

    embeds_all_tasks = False  # whether a convolutional net takes the images of all tasks as one batch

    @property
    def adapted_parameters(self) -> int:
        """The number of parameters generated per task, not counting those per class."""
        return 0

    def criterion(self, problem: Problem) -> Callable[[Tensor, Tensor], Tensor]:
        """The training losses, a function of predictions [..., Q, out] and labels y to [..., Q]."""
        return problem.losses

    def prior(self, num_tasks: int) -> S:
        raise NotImplementedError

    def adapt(self, state: S, context: Examples) -> S:
        raise NotImplementedError

    def predict(self, state: S, x: Tensor) -> Tensor:
        raise NotImplementedError

    def state_vectors(self, state: S) -> Tensor:
        """All that the state holds of each task: [N, D]."""
        return torch.cat([leaf.flatten(1) for leaf in tree_leaves(state) if isinstance(leaf, Tensor)], 1)


class AmortisedLearner:
    """Trains an adaptation by Adam on the query loss, given the support."""

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
    def shares_averages(self) -> bool:
        """Whether several processes can share tasks if its nets keep running averages: each task is a batch then."""
        return not self.adaptation.embeds_all_tasks

    @property
    def facts(self) -> Mapping[str, Any]:
        """The net's normalisation, and the number of parameters generated per task, not counting those per class."""
        return {**normalisation_facts(self.adaptation), "adapted_parameters": self.adaptation.adapted_parameters}

    def check_episodes(self, train: FewShotEpisode, test: FewShotEpisode) -> None:
        """Check that the learner can absorb the supports of these episodes.

        Raises:
            ValueError: when supports cannot be absorbed, such as for more classes than the net has outputs.
        """
        with torch.no_grad(), in_evaluation(self.adaptation):
            for episode in (train, test):
                self.adaptation.adapt(self.adaptation.prior(1), episode.support)

    def update(self, experience: FewShotEpisode, generator: torch.Generator) -> dict[str, float]:
        """One step of Adam; the logged score is from before the step."""
        query = experience.query
        loss, prediction = self._judged(experience.support, query, generator)
        norm = self.outer_step(loss)
        absorb_shared_statistics(self.adaptation)
        score = self.problem.score(prediction.detach(), query).mean()
        return {
            f"train/query_{self.problem.measure.name}": float(score),
            "train/loss": float(loss.detach()),
            "train/grad_norm": norm,
        }

    def task_gradients(self, experience: FewShotEpisode, num_tasks: int, generator: torch.Generator) -> Tensor:
        """The gradients of the loss on the queries given the support: [num_tasks, P]."""
        parameters = list(self.adaptation.parameters())
        tasks = (experience[task : task + 1] for task in range(num_tasks))
        losses = (self._judged(task.support, task.query, generator)[0] for task in tasks)
        return torch.stack([flat_gradient(loss, parameters) for loss in losses])

    def _judged(self, support: Examples, query: Examples, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The loss on a batch of tasks, and the predictions for their queries."""
        state = self.adaptation.adapt(self.adaptation.prior(len(support)), support)
        prediction = self.adaptation.predict(state, query.x)
        return mean_over_examples(self.losses(prediction, query.y), query.valid).mean(), prediction

    def predictions(self, episode: FewShotEpisode, num_points: int) -> Tensor:
        """Predictions after 0, 1, ... shots of all classes, or examples of a function: [num_points + 1, N, Q, out].

        Each point absorbs its part of the support in one call, as in training; before any shot all classes are equally
        likely. A support with padding, whose classes have different numbers of shots, gives a single point.

        Raises:
            ValueError: when the support is too small.
        """
        support, query = episode.support, episode.query
        size = self._point_size(episode, num_points)
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

    def state_vectors(self, episode: FewShotEpisode, num_points: int) -> Tensor:
        """What the states after 0, 1, ... points hold of each task: [num_points + 1, N, D]."""
        support, size = episode.support, self._point_size(episode, num_points)
        prior = self.adaptation.prior(len(support))
        with torch.no_grad(), in_evaluation(self.adaptation):
            vectors = [self.adaptation.state_vectors(prior)]
            for point in range(1, num_points + 1):
                state = self.adaptation.adapt(prior, support.map(lambda value: value[:, : point * size]))  # noqa: B023
                vectors.append(self.adaptation.state_vectors(state))
        return torch.stack(vectors)

    def _point_size(self, episode: FewShotEpisode, num_points: int) -> int:
        """The support's examples that one point of the curve absorbs.

        Raises:
            ValueError: when the support is too small for so many points.
        """
        support = episode.support
        size = support.x.shape[1] if support.valid is not None else num_ways(episode) if self.point == "shot" else 1
        if num_points * size > support.x.shape[1]:
            most = f"{support.x.shape[1] // size}, the support's {self.point}s"
            raise ValueError(f"num_points is {num_points}; must be at most {most}")
        return size

    def state_dict(self) -> dict[str, Any]:
        return self.outer_step.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.outer_step.load_state_dict(state)
