"""Reptile: adapt to each task on mini-batches, then move the initialisation towards the adapted parameters.

Nichol, Achiam, Schulman. On first-order meta-learning algorithms (2018).
Kingma, Ba. Adam: a method for stochastic optimization (2015), without momentum as in Nichol et al.

Deviations: 1. the tasks of an update are adapted to in parallel, and their changes are averaged; so are Adam's
statistics, with which later tasks start. The published code passes them from task to task. 2. no query set is held out
in training: both sets of an episode are adapted to; the logged score is for the last mini-batch, before adapting to it.
3. mini-batches take examples in the episode's order, which balances their classes as far as possible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from metarl.adaptation.batching import Batching
from metarl.adaptation.gradient import GradientAdaptation, Params, supervised_loss
from metarl.adaptation.step_sizes import FixedStepSizes
from metarl.adaptation.update_rules import RuleAdaptation, params_of
from metarl.checks import at_least, positive
from metarl.fewshot.episode import FewShotEpisode
from metarl.fewshot.gradient_learner import AdaptsBySteps, NetConfig, adapted_vectors, check_ways, gradient_facts
from metarl.fewshot.normalising import absorb_statistics, in_evaluation, normalisation_facts, with_context
from metarl.fewshot.problem import Problem
from metarl.fewshot.source import LearnsFromEpisodes
from metarl.optim import check_finite
from metarl.parallel import mean_over_tasks
from metarl.records import Examples, cat


class AdamWithoutMomentum(nn.Module):
    """Adam with beta1 zero: gradients divided by the root of their running mean square.

    Every task starts with the statistics passed on (`hand_on`) by earlier tasks; zeros before the first.
    First order only: the root is not differentiable where a gradient is zero.

    params: the parameters that adapt, by name, without a task axis.
    """

    count: Tensor  # number of accumulated steps

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
        """Let later tasks start with the mean of these tasks' statistics."""
        self.count.copy_(mean_over_tasks(memory["count"]))
        for name, square in memory["square"].items():
            self.get_buffer(self._buffer_of[name]).copy_(mean_over_tasks(square))

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
    """A factor [N] reshaped to broadcast against a tensor [N, ...]."""
    return factor.view(-1, *(1,) * (value.ndim - 1))


@dataclass(frozen=True)
class ReptileConfig(LearnsFromEpisodes, NetConfig):
    """Reptile: the initialisation moves towards the adapted parameters."""

    inner_optimizer: Literal["sgd", "adam"] = "sgd"  # optimiser of the inner steps: SGD, or Adam without momentum
    inner_batch: int = 10  # number of examples per inner step in meta-training; must divide an episode's examples
    test_batch: int | None = None  # number of examples per inner step at meta-test; None: the whole support
    inner_lr: float = 0.02  # step size of the inner steps
    outer_lr: float = 1.0  # fraction of the move to the adapted parameters, falling linearly to zero
    transduction: bool = True  # whether queries are normalised together at meta-test, or each with the support only
    batching: Batching = "vmap"  # way of batching over tasks; results agree up to rounding
    chunk_size: int = 8  # number of tasks per chunk, with batching "chunks"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "inner_batch", "test_batch", "chunk_size")
        positive(self, "inner_lr", "outer_lr")

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
    """Moves the initialisation by a decreasing fraction of the mean change through adaptation."""

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
            facts["normalised"] = "each query with the support"
        return facts

    @property
    def _one_by_one(self) -> bool:
        """Whether queries must be processed separately, because the normalisation would mix them."""
        modes = normalisation_facts(self.adaptation.net).get("normalisation", "")
        return "transductive" in modes and not self.config.transduction

    def check_episodes(self, train: FewShotEpisode, test: FewShotEpisode) -> None:
        """Check that mini-batches divide the examples of these episodes.

        Raises:
            ValueError: when mini-batches do not divide the examples, or there are too many classes.
        """
        check_ways(self.problem, train)
        check_ways(self.problem, test)
        mini_batches(train, self.config.inner_batch)
        self._test_batches(test.support)

    def _test_batches(self, support: Examples) -> list[Examples]:
        return _in_batches(support, self.config.test_batch or support.x.shape[1], "test_batch", "a support set")

    @torch.no_grad()
    def update(self, experience: FewShotEpisode, generator: torch.Generator) -> dict[str, float]:
        """One move of the initialisation; the logged score is for the last mini-batch, before adapting to it.

        Raises:
            ValueError: when the mini-batch size does not divide the episode's examples.
            FloatingPointError: when a parameter is no longer finite.
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
        check_finite(self.adaptation.net, f"update {self.num_updates + 1}")
        if isinstance(self.adaptation, RuleAdaptation):
            self.adaptation.rule.hand_on(state.memory)
        absorb_statistics(self.adaptation.net, experience)
        self.num_updates += 1
        return {f"train/query_{self.problem.measure.name}": float(score), "train/outer_lr": share}

    def _move(self, start: Params, reached: Params, share: float) -> None:
        """Move the initialisation by a fraction of the mean change."""
        moves = {name: mean_over_tasks(reached[name] - start[name]) for name in self.adaptation.adapted}
        for name, move in moves.items():
            self.adaptation.net.get_parameter(name).add_(share * move)

    def predictions(self, episode: FewShotEpisode, num_points: int) -> Tensor:
        """Predictions for the queries after 0, 1, ... steps on the support: [num_points + 1, N, Q, out].

        Raises:
            ValueError: when the mini-batch size does not divide the support, or the support has too many classes.
        """
        check_ways(self.problem, episode)
        support, query = with_context(self.adaptation.net, episode)
        batches = self._test_batches(support)
        with torch.no_grad(), in_evaluation(self.adaptation.net):
            return torch.stack([self._answers(state, support, query) for state in self._path(batches, num_points)])

    def state_vectors(self, episode: FewShotEpisode, num_points: int) -> Tensor:
        """The parameters that adapt [num_points + 1, N, P]."""
        check_ways(self.problem, episode)
        support, _ = with_context(self.adaptation.net, episode)
        with torch.no_grad(), in_evaluation(self.adaptation.net):
            states = self._path(self._test_batches(support), num_points)
            return torch.stack([adapted_vectors(self.adaptation, state) for state in states])

    def _path(self, batches: list[Examples], num_steps: int) -> Iterator[Any]:
        """The states after 0, 1, ... steps on one batch after another."""
        state = self.adaptation.prior(len(batches[0]))
        yield state
        for step in range(num_steps):
            state = self.adaptation.adapt(state, batches[step % len(batches)], 1)
            yield state

    def _answers(self, state: Any, support: Examples, query: Examples) -> Tensor:
        """Predictions for all queries at once, or for each in a batch with the support only."""
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
        ValueError: when the size does not divide them, and there is no padding.
    """
    return _in_batches(cat([episode.support, episode.query], 1), size, "inner_batch", "a task's episode")


def _in_batches(data: Examples, size: int, name: str, owner: str) -> list[Examples]:
    """Batches [N, size, ...]; the last one is filled up with padding if the data have padding already."""
    missing = -data.x.shape[1] % size
    if missing and data.valid is None:
        raise ValueError(f"{name} is {size}; must divide the {data.x.shape[1]} examples of {owner}")
    if missing:
        again = torch.arange(missing, device=data.x.device) % data.x.shape[1]
        more = data.map(lambda value: value[:, again])
        data = cat([data, replace(more, valid=torch.zeros_like(more.y, dtype=torch.bool))], 1)
    return [data.map(lambda value: value[:, start : start + size]) for start in range(0, data.x.shape[1], size)]  # noqa: B023
