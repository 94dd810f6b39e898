"""Reptile: adapt to each task by mini-batches, then move the initialisation towards where adaptation led.

Nichol, Achiam, Schulman. On first-order meta-learning algorithms (2018).

Deviations: 1. several tasks an update, whose moves are averaged (the paper's sinusoid has one). 2. no query set is held
out of training: both sets of an episode are adapted to; the error that is logged is that on the last mini-batch before
it is adapted to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from metarl.adaptation.batching import Batching
from metarl.adaptation.gradient import GradientAdaptation
from metarl.convnets import STRIDED, ConvConfig
from metarl.fewshot.episode import FewShotEpisode
from metarl.fewshot.gradient_learner import check_ways, gradient_facts, gradient_predictions
from metarl.fewshot.learners import MAMLConfig
from metarl.fewshot.normalising import absorb_statistics
from metarl.fewshot.problem import Problem
from metarl.records import Examples, cat


@dataclass(frozen=True)
class ReptileConfig:
    """Reptile: the initialisation moves towards the adapted parameters."""

    hidden_sizes: tuple[int, ...] = (40, 40)  # of the net for vectors
    activation: Literal["relu", "tanh", "silu"] = "relu"
    conv: ConvConfig = STRIDED  # the net for images
    inner_batch: int = 10  # examples of an inner step; an episode's examples divided by it is the number of steps
    inner_lr: float = 0.02
    outer_lr: float = 1.0  # the share of the way towards the adapted parameters, falling linearly to zero
    batching: Batching | Literal["auto"] = "vmap"
    chunk_size: int = 8  # tasks, where batching is "chunks"

    def __post_init__(self) -> None:
        if self.inner_batch < 1:
            raise ValueError(f"inner_batch is {self.inner_batch}; it must be at least 1")
        if self.outer_lr <= 0:
            raise ValueError(f"outer_lr is {self.outer_lr}; it must be positive")
        self._as_maml()  # checks the rest

    def _as_maml(self) -> MAMLConfig:
        return MAMLConfig(
            hidden_sizes=self.hidden_sizes,
            activation=self.activation,
            conv=self.conv,
            inner_lr=self.inner_lr,
            batching=self.batching,
            chunk_size=self.chunk_size,
        )

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> Reptile:
        maml = self._as_maml()
        net = maml.make_net(problem, generator)
        return Reptile(self, maml.make_adaptation(net, problem, generator), problem, num_iterations)


class Reptile:
    """Moves the initialisation by a falling share of the mean way that adaptation went."""

    point = "step"

    def __init__(
        self, config: ReptileConfig, adaptation: GradientAdaptation, problem: Problem, num_iterations: int
    ) -> None:
        self.config, self.adaptation, self.problem = config, adaptation, problem
        self.num_iterations = num_iterations
        self.num_updates = 0

    @property
    def facts(self) -> Mapping[str, Any]:
        return gradient_facts(self.adaptation)

    @torch.no_grad()
    def update(self, experience: FewShotEpisode, generator: torch.Generator) -> dict[str, float]:
        """One move; the score that is logged is that on the last mini-batch before it is adapted to.

        Raises:
            ValueError: when the episode's examples are no whole number of mini-batches.
        """
        check_ways(self.problem, experience)
        batches = mini_batches(experience, self.config.inner_batch)
        start = state = self.adaptation.prior(len(experience.support))
        score = torch.zeros(())
        for number, batch in enumerate(batches, start=1):
            if number == len(batches):
                score = self.problem.score(self.adaptation.predict(state, batch.x), batch).mean()
            state = self.adaptation.adapt(state, batch, 1)
        share = self.config.outer_lr * (1 - self.num_updates / self.num_iterations)
        moves = {name: (state[name] - start[name]).mean(0) for name in self.adaptation.adapted}
        for name, parameter in self.adaptation.net.named_parameters():
            parameter += share * moves[name]
        absorb_statistics(self.adaptation.net, experience)
        self.num_updates += 1
        return {f"train/query_{self.problem.measure.name}": float(score), "train/outer_lr": share}

    def predictions(self, episode: FewShotEpisode, num_points: int) -> Tensor:
        check_ways(self.problem, episode)
        return gradient_predictions(self.adaptation, episode, num_points)

    def state_dict(self) -> dict[str, Any]:
        return {"adaptation": self.adaptation.state_dict(), "num_updates": self.num_updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.adaptation.load_state_dict(state["adaptation"])
        self.num_updates = state["num_updates"]


def mini_batches(episode: FewShotEpisode, size: int) -> list[Examples]:
    """All examples of an episode, support first, in batches [N, size, ...].

    Raises:
        ValueError: when they do not divide.
    """
    data = cat([episode.support, episode.query], 1)
    if data.x.shape[1] % size:
        raise ValueError(f"inner_batch is {size}; it must divide the {data.x.shape[1]} examples of a task's episode")
    return [Examples(x, y) for x, y in zip(data.x.split(size, 1), data.y.split(size, 1), strict=True)]
