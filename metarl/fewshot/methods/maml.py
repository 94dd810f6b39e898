"""MAML and first-order MAML: gradient steps on a task, from a meta-learned initialisation.

Finn, Abbeel, Levine. Model-agnostic meta-learning for fast adaptation of deep networks (2017).

The adaptation is in metarl/adaptation/gradient.py; other methods of this kind are settings of it, or other files here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from metarl.adaptation.gradient import GradientAdaptation, parameters_of, supervised_loss
from metarl.adaptation.head import HeadAdaptation
from metarl.adaptation.step_sizes import FixedStepSizes, PerParameterStepSizes, PerStepStepSizes
from metarl.fewshot.gradient_learner import GradientLearner, InnerStepsConfig, OuterStepsConfig
from metarl.fewshot.problem import Problem
from metarl.nets.conv import ImageClassifier


@dataclass(frozen=True)
class MAMLConfig(OuterStepsConfig, InnerStepsConfig):
    """Model-agnostic meta-learning: gradient steps from a meta-learned initialisation."""

    step_sizes: Literal["fixed", "per_parameter", "per_step"] = "fixed"  # kind of step size: fixed or learned
    adapted: Literal["all", "head", "body", "bias"] = "all"  # parameters that adapt; "head": the last layer

    def __post_init__(self) -> None:
        OuterStepsConfig.__post_init__(self)
        InnerStepsConfig.__post_init__(self)

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
    """First-order MAML: the outer gradient ignores the derivative of the inner one."""

    first_order: bool = True  # whether the outer gradient ignores the derivative of the inner one
