"""Few-shot learners by gradient adaptation: MAML, FOMAML, Meta-SGD, MAML++, ANIL and iMAML.

Finn, Abbeel, Levine (2017). Li et al. (2017). Antoniou, Edwards, Storkey (2019). Raghu et al. (2020). Rajeswaran et
al. (2019). One learner; the methods are settings of it, and their classes say which.

Deviations: 1. MAML++: with "running" normalisation each step's statistics are those that its paper describes; its
published code keeps such statistics and normalises by the batch all the same, which is "transductive" here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from metarl.adaptation.batching import Batching
from metarl.adaptation.gradient import GradientAdaptation, parameters_of, supervised_loss
from metarl.adaptation.head import HeadAdaptation
from metarl.adaptation.implicit import ImplicitAdaptation
from metarl.adaptation.per_step_norms import PerStepNormAdaptation, per_step_names
from metarl.adaptation.step_sizes import FixedStepSizes, PerParameterStepSizes, PerStepStepSizes
from metarl.fewshot.episode import FewShotEpisode
from metarl.fewshot.gradient_learner import GradientLearner, NetConfig, OuterStepsConfig
from metarl.fewshot.problem import Problem
from metarl.nets.conv import ImageClassifier


@dataclass(frozen=True)
class MAMLConfig(OuterStepsConfig, NetConfig):
    """Model-agnostic meta-learning: gradient steps from a meta-learned initialisation."""

    num_inner_steps: int = 1
    inner_lr: float = 0.01  # initial, where step sizes are learned
    step_sizes: Literal["fixed", "per_parameter", "per_step"] = "fixed"
    adapted: Literal["all", "head", "body", "bias"] = "all"
    batching: Batching | Literal["auto"] = "batched"
    chunk_size: int = 8  # tasks, where batching is "chunks"

    def __post_init__(self) -> None:
        OuterStepsConfig.__post_init__(self)
        NetConfig.__post_init__(self)
        if self.inner_lr <= 0:
            raise ValueError(f"inner_lr is {self.inner_lr}; it must be positive")
        if self.num_inner_steps < 1:
            raise ValueError(f"num_inner_steps is {self.num_inner_steps}; it must be at least 1")

    def make_step_sizes(self, net: nn.Module, adapted: list[str], generator: torch.Generator) -> nn.Module:
        params = {name: value for name, value in net.named_parameters() if name in adapted}
        if self.step_sizes == "per_parameter":
            return PerParameterStepSizes(params, self.inner_lr, generator)
        if self.step_sizes == "per_step":
            return PerStepStepSizes(params, self.inner_lr, self.num_inner_steps)
        return FixedStepSizes(self.inner_lr)

    def make_adaptation(self, net: nn.Module, problem: Problem, generator: torch.Generator) -> GradientAdaptation:
        adapted = parameters_of(net, self.adapted)
        step_sizes = self.make_step_sizes(net, adapted, generator)
        settings: dict[str, Any] = {
            "num_steps": self.num_inner_steps,
            "first_order": self.first_order,
            "batching": self.batching,
            "chunk_size": self.chunk_size,
        }
        if self.adapted == "head" and isinstance(net, ImageClassifier):
            return HeadAdaptation(net, problem.losses, step_sizes, **settings)
        return GradientAdaptation(net, supervised_loss(net, problem.losses), step_sizes, adapted=adapted, **settings)

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
    per_step_norms: bool = True  # each step has scales, shifts and running statistics of its own, in nets with any

    def make_adaptation(self, net: nn.Module, problem: Problem, generator: torch.Generator) -> GradientAdaptation:
        own_of_step = per_step_names(net)
        if not (self.per_step_norms and own_of_step):
            return super().make_adaptation(net, problem, generator)
        adapted = [name for name in parameters_of(net, self.adapted) if name not in own_of_step]
        return PerStepNormAdaptation(
            net,
            supervised_loss(net, problem.losses),
            self.make_step_sizes(net, adapted, generator),
            adapted=adapted,
            num_steps=self.num_inner_steps,
            first_order=self.first_order,
            batching=self.batching,
            chunk_size=self.chunk_size,
        )

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> GradientLearner:
        net = self.make_net(problem, generator)
        return MAMLPlusPlus(self, self.make_adaptation(net, problem, generator), problem, num_iterations)


class MAMLPlusPlus(GradientLearner):
    """Keeps the running statistics of each step of adaptation."""

    def _absorb_statistics(self, states: list[Any], experience: FewShotEpisode) -> None:
        if isinstance(self.adaptation, PerStepNormAdaptation):
            self.adaptation.record(states, experience.support, experience.query)
        else:
            super()._absorb_statistics(states, experience)


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
    cg_damping: float = 1.0  # these two as in the published code; both 0: the paper's equation
    strength_damping: float = 10.0
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
            strength_damping=self.strength_damping,
            max_move=self.max_move,
            batching=self.batching,
            chunk_size=self.chunk_size,
        )
