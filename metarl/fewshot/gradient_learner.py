"""Meta-learning by gradients through adaptation: what MAML and its kin share, whatever is adapted and by what rule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from metarl.convnets import STRIDED, ConvConfig, ImageClassifier
from metarl.fewshot.episode import FewShotEpisode, num_ways
from metarl.fewshot.normalising import absorb_statistics, in_evaluation, normalisation_facts, with_context
from metarl.fewshot.problem import Classification, Problem
from metarl.nets import mlp
from metarl.records import Examples


class AdaptsBySteps(Protocol):
    """An `Adaptation` of a net's parameters, step after step on a support set, as an nn.Module."""

    net: nn.Module
    adapted: tuple[str, ...]  # names of the net's parameters
    num_steps: int

    def prior(self, num_tasks: int) -> Any: ...

    def path(
        self, state: Any, context: Examples, num_steps: int | None = None, *, first_order: bool | None = None
    ) -> list[Any]: ...

    def losses(self, state: Any, data: Examples) -> Tensor: ...

    def predict(self, state: Any, x: Tensor, context: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True)
class NetConfig:
    """The net that adapts."""

    hidden_sizes: tuple[int, ...] = (40, 40)  # of the net for vectors
    activation: Literal["relu", "tanh", "silu"] = "relu"
    conv: ConvConfig = STRIDED  # the net for images

    def __post_init__(self) -> None:
        if not self.hidden_sizes or min(self.hidden_sizes) < 1:
            raise ValueError(f"hidden_sizes is {self.hidden_sizes}; allowed are one or more positive numbers")

    def make_net(self, problem: Problem, generator: torch.Generator) -> nn.Module:
        if len(problem.input_shape) == 3:
            return ImageClassifier(self.conv, problem.input_shape, problem.output_size, generator=generator)
        sizes = (*problem.input_shape, *self.hidden_sizes, problem.output_size)
        return mlp(sizes, activation=self.activation, output_gain=1.0, generator=generator)


@dataclass(frozen=True)
class OuterStepsConfig:
    """How a meta-gradient through adaptation is taken, and what Adam makes of it."""

    first_order: bool = False
    first_order_share: float = 0.0  # of all iterations, in which the outer gradient is first order; then second order
    multi_step_share: float = 0.0  # of all iterations, over which losses after earlier steps fade out (MAML++)
    outer_lr: float = 1e-3
    final_outer_lr: float | None = None  # reached along a cosine; None: constant
    max_grad_norm: float | None = None  # of the meta-gradient; None: unlimited

    def __post_init__(self) -> None:
        for name in ("outer_lr", "final_outer_lr", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}; it must be positive")
        for name in ("first_order_share", "multi_step_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")


class GradientLearner:
    """Learns the initialisation, and what else is learned of adaptation, by Adam on the loss after it."""

    point = "step"

    def __init__(self, config: OuterStepsConfig, adaptation: nn.Module, problem: Problem, num_iterations: int) -> None:
        self.config, self.problem = config, problem
        self.adaptation: Any = adaptation  # one that AdaptsBySteps
        self.num_iterations = num_iterations
        self.optimizer = torch.optim.Adam(adaptation.parameters(), lr=config.outer_lr)
        self.num_updates = 0

    @property
    def facts(self) -> Mapping[str, Any]:
        return gradient_facts(self.adaptation)

    def update(self, experience: FewShotEpisode, generator: torch.Generator) -> dict[str, float]:
        """One step of Adam; the score that is logged is that of the inner steps before it."""
        config, progress = self.config, self.num_updates / self.num_iterations
        set_learning_rate(self.optimizer, config.outer_lr, config.final_outer_lr, progress)
        first_order = config.first_order or progress < config.first_order_share
        check_ways(self.problem, experience)
        support, query = with_context(self.adaptation.net, experience)
        states = self.adaptation.path(self._prior(len(support), generator), support, first_order=first_order)
        weights = step_weights(self.adaptation.num_steps, progress, config.multi_step_share)
        losses = [
            weight * self.adaptation.losses(state, query).mean()
            for state, weight in zip(states[1:], weights, strict=True)
            if weight
        ]
        self.optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        norm = nn.utils.clip_grad_norm_(self.adaptation.parameters(), config.max_grad_norm or math.inf)
        with torch.no_grad():
            prediction = self.adaptation.predict(states[-1], query.x, query.context)
            score = self.problem.score(prediction, query).mean()
        self.optimizer.step()
        self._absorb_statistics(states, experience)
        self.num_updates += 1
        return {f"train/query_{self.problem.measure.name}": float(score), "train/grad_norm": float(norm)}

    def _prior(self, num_tasks: int, generator: torch.Generator) -> Any:
        """Where adaptation begins in meta-training."""
        return self.adaptation.prior(num_tasks)

    def _absorb_statistics(self, states: list[Any], experience: FewShotEpisode) -> None:
        """Running statistics, where the net keeps any, after an update that went through these states."""
        absorb_statistics(self.adaptation.net, experience)

    def predictions(self, episode: FewShotEpisode, num_points: int) -> Tensor:
        check_ways(self.problem, episode)
        return gradient_predictions(self.adaptation, episode, num_points)

    def state_dict(self) -> dict[str, Any]:
        return {
            "adaptation": self.adaptation.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "num_updates": self.num_updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.adaptation.load_state_dict(state["adaptation"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.num_updates = state["num_updates"]


def gradient_predictions(adaptation: AdaptsBySteps, episode: FewShotEpisode, num_steps: int) -> Tensor:
    """What is predicted for the queries after 0, 1, ... steps on the support: [num_steps + 1, N, Q, out]."""
    support, query = with_context(adaptation.net, episode)
    with torch.no_grad(), in_evaluation(adaptation.net):
        states = adaptation.path(adaptation.prior(len(support)), support, num_steps)
        return torch.stack([adaptation.predict(state, query.x, query.context) for state in states])


def check_ways(problem: Problem, episode: FewShotEpisode) -> None:
    """A net's last layer has the number of classes that it was made with.

    Raises:
        ValueError: when there are more in the episode's tasks.
    """
    if isinstance(problem, Classification) and num_ways(episode) > problem.ways:
        raise ValueError(f"ways is {num_ways(episode)}; this learner's net has outputs for {problem.ways}")


def gradient_facts(adaptation: AdaptsBySteps) -> dict[str, Any]:
    """How the net normalises, and how many numbers of it adapt to a task."""
    params = dict(adaptation.net.named_parameters())
    adapted = {"adapted_parameters": sum(params[name].numel() for name in adaptation.adapted)}
    return {**normalisation_facts(adaptation.net), **adapted}


def step_weights(num_steps: int, progress: float, share: float) -> list[float]:
    """MAML++'s weights of the losses after each step, which sum to one: equal at first, the last alone from `share` on.

    progress: the share of all iterations that is over.
    """
    left = max(0.0, 1 - progress / share) if share else 0.0
    early = left / num_steps
    return [early] * (num_steps - 1) + [1 - early * (num_steps - 1)]


def set_learning_rate(optimizer: torch.optim.Optimizer, start: float, end: float | None, progress: float) -> None:
    """From `start` to `end` along half a cosine; constant where `end` is None."""
    rate = start if end is None else end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
    for group in optimizer.param_groups:
        group["lr"] = rate
