"""Reptile: adapt to each task by mini-batches, then move the initialisation towards where adaptation led.

Nichol, Achiam, Schulman. On first-order meta-learning algorithms (2018).
Kingma, Ba. Adam: a method for stochastic optimization (2015), without momentum as Nichol et al. have it.

Deviations: 1. tasks of an update are adapted to side by side, and their moves are averaged; so is what Adam remembers
of them, which later tasks begin with. The published code hands it on from task to task. 2. no query set is held out of
training: both sets of an episode are adapted to; the score that is logged is that on the last mini-batch before it is
adapted to. 3. mini-batches take examples in the order of the episode, so that they have as many of each class as they
can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from metarl.adaptation.batching import Batching
from metarl.adaptation.gradient import GradientAdaptation, Params, supervised_loss
from metarl.adaptation.step_sizes import FixedStepSizes
from metarl.adaptation.update_rules import RuleAdaptation, params_of
from metarl.fewshot.episode import FewShotEpisode
from metarl.fewshot.gradient_learner import AdaptsBySteps, NetConfig, check_ways, gradient_facts
from metarl.fewshot.normalising import absorb_statistics, in_evaluation, normalisation_facts, with_context
from metarl.fewshot.problem import Problem
from metarl.fewshot.source import LearnsFromEpisodes
from metarl.records import Examples, cat


class AdamWithoutMomentum(nn.Module):
    """Adam whose beta1 is zero: gradients over the root of the mean of their squares so far.

    Every task begins with what was handed on (`hand_on`) from tasks before it; nothing, as long as there were none.
    For first order only: the root has no slope where a gradient is zero.

    params: those that adapt, by name, without an axis of tasks.
    """

    count: Tensor  # steps that squares were gathered in

    def __init__(
        self, params: Mapping[str, Tensor], inner_lr: float, *, beta: float = 0.999, epsilon: float = 1e-8
    ) -> None:
        super().__init__()
        self.inner_lr, self.beta, self.epsilon = inner_lr, beta, epsilon
        self.register_buffer("count", next(iter(params.values())).new_zeros(()))
        self._buffer_of = {name: f"square_{number}" for number, name in enumerate(params)}
        for name, value in params.items():
            self.register_buffer(self._buffer_of[name], torch.zeros_like(value))

    def start(self, params: Params, generator: torch.Generator | None) -> dict[str, Any]:
        num_tasks = len(next(iter(params.values())))
        square = {name: self.get_buffer(self._buffer_of[name]) for name in params}
        return {
            "count": self.count.expand(num_tasks),
            "square": {name: value.expand(num_tasks, *value.shape) for name, value in square.items()},
        }

    def hand_on(self, memory: dict[str, Any]) -> None:
        """Later tasks begin with the mean of what these remember."""
        self.count.copy_(memory["count"].mean())
        for name, square in memory["square"].items():
            self.get_buffer(self._buffer_of[name]).copy_(square.mean(0))

    def forward(
        self, params: Params, gradient: Params, losses: Tensor, memory: dict[str, Any]
    ) -> tuple[Params, dict[str, Any]]:
        count = memory["count"] + 1
        square = {
            name: self.beta * v + (1 - self.beta) * gradient[name].square() for name, v in memory["square"].items()
        }
        correction = (1 - self.beta**count).sqrt()  # [N]
        moved = {}
        for name, value in params.items():
            root = square[name].sqrt() / _over(correction, value)
            moved[name] = value - self.inner_lr * gradient[name] / (root + self.epsilon)
        return moved, {"count": count, "square": square}


def _over(factor: Tensor, value: Tensor) -> Tensor:
    """[N] as it meets a tensor [N, ...]."""
    return factor.view(-1, *(1,) * (value.ndim - 1))


@dataclass(frozen=True)
class ReptileConfig(LearnsFromEpisodes, NetConfig):
    """Reptile: the initialisation moves towards the adapted parameters."""

    inner_optimizer: Literal["sgd", "adam"] = "sgd"  # Adam without momentum
    inner_batch: int = 10  # examples of an inner step; an episode's examples divided by it is the number of steps
    test_batch: int | None = None  # examples per inner step at meta-test; None: the whole support
    inner_lr: float = 0.02
    outer_lr: float = 1.0  # the share of the way towards the adapted parameters, falling linearly to zero
    transduction: bool = True  # at meta-test queries are normalised together; otherwise each beside the support alone
    batching: Batching = "vmap"
    chunk_size: int = 8  # tasks, where batching is "chunks"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("inner_batch", "test_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; must be at least 1")
        for name in ("inner_lr", "outer_lr"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; must be positive")

    def make_adaptation(
        self, net: nn.Module, problem: Problem, adapted: list[str] | None = None
    ) -> GradientAdaptation | RuleAdaptation:
        gradients = GradientAdaptation(
            net,
            supervised_loss(net, problem.losses),
            FixedStepSizes(self.inner_lr),
            adapted=adapted,
            first_order=True,
            batching=self.batching,
            chunk_size=self.chunk_size,
        )
        if self.inner_optimizer == "sgd":
            return gradients
        params = {name: net.get_parameter(name) for name in gradients.adapted}
        return RuleAdaptation(gradients, AdamWithoutMomentum(params, self.inner_lr))

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> Reptile:
        net = self.make_net(problem, generator)
        return Reptile(self, self.make_adaptation(net, problem), problem, num_iterations)


class Reptile:
    """Moves the initialisation by a falling share of the mean way that adaptation went."""

    point = "step"

    def __init__(
        self,
        config: ReptileConfig,
        adaptation: AdaptsBySteps,
        problem: Problem,
        num_iterations: int,
    ) -> None:
        self.config, self.problem, self.num_iterations = config, problem, num_iterations
        self.adaptation = adaptation
        self.num_updates = 0

    @property
    def facts(self) -> Mapping[str, Any]:
        facts = gradient_facts(self.adaptation)
        if self._one_by_one:
            facts["normalised"] = "each query beside the support"
        return facts

    @property
    def _one_by_one(self) -> bool:
        """Whether queries have to be kept apart; only where the others would say something of each."""
        modes = normalisation_facts(self.adaptation.net).get("normalisation", "")
        return "transductive" in modes and not self.config.transduction

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
        self._move(params_of(start), params_of(state), share)
        if isinstance(self.adaptation, RuleAdaptation):
            self.adaptation.rule.hand_on(state.memory)
        absorb_statistics(self.adaptation.net, experience)
        self.num_updates += 1
        return {f"train/query_{self.problem.measure.name}": float(score), "train/outer_lr": share}

    def _move(self, start: Params, reached: Params, share: float) -> None:
        """The initialisation, by a share of the mean way."""
        moves = {name: (reached[name] - start[name]).mean(0) for name in self.adaptation.adapted}
        for name, move in moves.items():
            self.adaptation.net.get_parameter(name).add_(share * move)

    def predictions(self, episode: FewShotEpisode, num_points: int) -> Tensor:
        """What is predicted for the queries after 0, 1, ... steps on the support: [num_points + 1, N, Q, out].

        Raises:
            ValueError: when the support is no whole number of mini-batches, or has too many classes.
        """
        check_ways(self.problem, episode)
        support, query = with_context(self.adaptation.net, episode)
        size = self.config.test_batch or support.x.shape[1]
        batches = _in_batches(support, size, "test_batch", "a support set")
        with torch.no_grad(), in_evaluation(self.adaptation.net):
            state = self.adaptation.prior(len(support))
            predictions = [self._answers(state, support, query)]
            for step in range(num_points):
                state = self.adaptation.adapt(state, batches[step % len(batches)], 1)
                predictions.append(self._answers(state, support, query))
        return torch.stack(predictions)

    def _answers(self, state: Any, support: Examples, query: Examples) -> Tensor:
        """To all queries at once, or to each one in a batch with the support alone."""
        if not self._one_by_one:
            return self.adaptation.predict(state, query.x, query.context)
        answers = [
            self.adaptation.predict(state, torch.cat([support.x, one], 1), query.context)[:, -1:]
            for one in query.x.split(1, 1)
        ]
        return torch.cat(answers, 1)

    def state_dict(self) -> dict[str, Any]:
        return {"adaptation": self.adaptation.state_dict(), "num_updates": self.num_updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.adaptation.load_state_dict(state["adaptation"])
        self.num_updates = state["num_updates"]


def mini_batches(episode: FewShotEpisode, size: int) -> list[Examples]:
    """All examples of an episode, support first, in batches [N, size, ...].

    Raises:
        ValueError: when they do not divide, and there is no padding.
    """
    return _in_batches(cat([episode.support, episode.query], 1), size, "inner_batch", "a task's episode")


def _in_batches(data: Examples, size: int, name: str, owner: str) -> list[Examples]:
    """Batches [N, size, ...], the last one filled up with padding where there is some already."""
    missing = -data.x.shape[1] % size
    if missing and data.valid is None:
        raise ValueError(f"{name} is {size}; must divide the {data.x.shape[1]} examples of {owner}")
    if missing:
        again = torch.arange(missing, device=data.x.device) % data.x.shape[1]
        more = data.map(lambda value: value[:, again])
        data = cat([data, replace(more, valid=torch.zeros_like(more.y, dtype=torch.bool))], 1)
    return [data.map(lambda value: value[:, start : start + size]) for start in range(0, data.x.shape[1], size)]  # noqa: B023
