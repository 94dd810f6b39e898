"""Few-shot learners by gradient adaptation: MAML, FOMAML, Meta-SGD, MAML++, ANIL and iMAML.

Finn, Abbeel, Levine (2017). Li et al. (2017). Antoniou, Edwards, Storkey (2019). Raghu et al. (2020). Rajeswaran et
al. (2019). One learner; the methods are settings of it, and their classes say which.

Deviations: 1. MAML++ without its parts for batch normalisation, as the net has none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from metarl.adaptation.batching import Batching
from metarl.adaptation.gradient import GradientAdaptation, parameters_of, supervised_loss
from metarl.adaptation.implicit import ImplicitAdaptation
from metarl.adaptation.step_sizes import FixedStepSizes, PerParameterStepSizes, PerStepStepSizes
from metarl.convnets import STRIDED, ConvConfig, ImageClassifier
from metarl.fewshot.episode import FewShotEpisode, num_ways
from metarl.fewshot.normalising import absorb_statistics, in_evaluation, normalisation_facts, with_context
from metarl.fewshot.problem import Classification, Problem
from metarl.nets import mlp


@dataclass(frozen=True)
class MAMLConfig:
    """Model-agnostic meta-learning: gradient steps from a meta-learned initialisation."""

    hidden_sizes: tuple[int, ...] = (40, 40)  # of the net for vectors
    activation: Literal["relu", "tanh", "silu"] = "relu"
    conv: ConvConfig = STRIDED  # the net for images
    num_inner_steps: int = 1
    inner_lr: float = 0.01  # initial, where step sizes are learned
    step_sizes: Literal["fixed", "per_parameter", "per_step"] = "fixed"
    adapted: Literal["all", "head", "body", "bias"] = "all"
    first_order: bool = False
    first_order_share: float = 0.0  # of all iterations, in which the outer gradient is first order; then second order
    multi_step_share: float = 0.0  # of all iterations, over which losses after earlier steps fade out (MAML++)
    outer_lr: float = 1e-3
    final_outer_lr: float | None = None  # reached along a cosine; None: constant
    max_grad_norm: float | None = None  # of the meta-gradient; None: unlimited
    batching: Batching | Literal["auto"] = "batched"
    chunk_size: int = 8  # tasks, where batching is "chunks"

    def __post_init__(self) -> None:
        for name in ("inner_lr", "outer_lr", "final_outer_lr", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}; it must be positive")
        for name in ("first_order_share", "multi_step_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        if self.num_inner_steps < 1:
            raise ValueError(f"num_inner_steps is {self.num_inner_steps}; it must be at least 1")
        if not self.hidden_sizes or min(self.hidden_sizes) < 1:
            raise ValueError(f"hidden_sizes is {self.hidden_sizes}; allowed are one or more positive numbers")

    def make_net(self, problem: Problem, generator: torch.Generator) -> nn.Module:
        if len(problem.input_shape) == 3:
            return ImageClassifier(self.conv, problem.input_shape, problem.output_size, generator=generator)
        sizes = (*problem.input_shape, *self.hidden_sizes, problem.output_size)
        return mlp(sizes, activation=self.activation, output_gain=1.0, generator=generator)

    def make_step_sizes(self, net: nn.Module, adapted: list[str], generator: torch.Generator) -> nn.Module:
        params = {name: value for name, value in net.named_parameters() if name in adapted}
        if self.step_sizes == "per_parameter":
            return PerParameterStepSizes(params, self.inner_lr, generator)
        if self.step_sizes == "per_step":
            return PerStepStepSizes(params, self.inner_lr, self.num_inner_steps)
        return FixedStepSizes(self.inner_lr)

    def make_adaptation(self, net: nn.Module, problem: Problem, generator: torch.Generator) -> GradientAdaptation:
        adapted = parameters_of(net, self.adapted)
        return GradientAdaptation(
            net,
            supervised_loss(net, problem.losses),
            self.make_step_sizes(net, adapted, generator),
            num_steps=self.num_inner_steps,
            adapted=adapted,
            first_order=self.first_order,
            batching=self.batching,
            chunk_size=self.chunk_size,
        )

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> GradientLearner:
        net = self.make_net(problem, generator)
        return GradientLearner(self, self.make_adaptation(net, problem, generator), problem, num_iterations)


@dataclass(frozen=True)
class FOMAMLConfig(MAMLConfig):
    """First-order MAML: the outer gradient does not go through the inner one."""

    first_order: bool = True


@dataclass(frozen=True)
class MetaSGDConfig(MAMLConfig):
    """Meta-SGD: MAML with a learned step size for each number in the net."""

    step_sizes: Literal["fixed", "per_parameter", "per_step"] = "per_parameter"


@dataclass(frozen=True)
class MAMLPlusPlusConfig(MAMLConfig):
    """MAML++: learned step sizes by layer and step, losses after every step, first order at first, cosine schedule."""

    num_inner_steps: int = 5
    step_sizes: Literal["fixed", "per_parameter", "per_step"] = "per_step"
    first_order_share: float = 0.1
    multi_step_share: float = 0.1
    final_outer_lr: float | None = 1e-5


@dataclass(frozen=True)
class ANILConfig(MAMLConfig):
    """ANIL: MAML whose last layer alone adapts."""

    adapted: Literal["all", "head", "body", "bias"] = "head"


@dataclass(frozen=True)
class IMAMLConfig(MAMLConfig):
    """iMAML: adapts with a pull towards the initialisation; the meta-gradient is implicit, by conjugate gradient."""

    num_inner_steps: int = 16
    strength: float = 2.0  # of the pull, lambda
    num_cg_steps: int = 5
    cg_damping: float = 1.0
    max_move: float | None = None  # the length that an inner step is cut to, as a norm over all parameters

    def __post_init__(self) -> None:
        super().__post_init__()
        plain = {"step_sizes": "fixed", "adapted": "all", "first_order": False}
        plain |= {"first_order_share": 0.0, "multi_step_share": 0.0}
        for name, value in plain.items():
            if getattr(self, name) != value:
                raise ValueError(f"{name} is {getattr(self, name)!r}; implicit gradients need {value!r}")

    def make_adaptation(self, net: nn.Module, problem: Problem, generator: torch.Generator) -> ImplicitAdaptation:
        return ImplicitAdaptation(
            net,
            supervised_loss(net, problem.losses),
            FixedStepSizes(self.inner_lr),
            num_steps=self.num_inner_steps,
            strength=self.strength,
            num_cg_steps=self.num_cg_steps,
            damping=self.cg_damping,
            max_move=self.max_move,
            batching=self.batching,
            chunk_size=self.chunk_size,
        )


class GradientLearner:
    """Learns the initialisation, and step sizes where they are learned, by Adam on the error after adaptation."""

    point = "step"

    def __init__(
        self, config: MAMLConfig, adaptation: GradientAdaptation, problem: Problem, num_iterations: int
    ) -> None:
        self.config, self.adaptation, self.problem = config, adaptation, problem
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
        states = self.adaptation.path(self.adaptation.prior(len(support)), support, first_order=first_order)
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
        absorb_statistics(self.adaptation.net, experience)
        self.num_updates += 1
        return {f"train/query_{self.problem.measure.name}": float(score), "train/grad_norm": float(norm)}

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


def gradient_predictions(adaptation: GradientAdaptation, episode: FewShotEpisode, num_steps: int) -> Tensor:
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


def gradient_facts(adaptation: GradientAdaptation) -> dict[str, Any]:
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
