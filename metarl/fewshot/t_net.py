"""T-nets and MT-nets: linear maps between layers that do not adapt, and learned gates of what does.

Lee, Choi. Gradient-based meta-learning with learned layerwise metric and subspace (2018).

Deviations: 1. a gate is open for nine units in ten at first, and is tossed apart for a layer's weights, its biases and
the scales and shifts of its normalisation, which adapt in both nets; 2. in meta-training gates are shut or open in
value, with the slope of soft ones; at meta-test each is as it is likelier to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from metarl.adaptation.batching import Batching
from metarl.adaptation.gradient import GradientAdaptation, supervised_loss
from metarl.adaptation.reparametrised import Transformed
from metarl.adaptation.step_sizes import FixedStepSizes
from metarl.adaptation.update_rules import GatedDescent, RuleAdaptation
from metarl.fewshot.gradient_learner import GradientLearner
from metarl.fewshot.learners import MAMLConfig
from metarl.fewshot.problem import Problem


@dataclass(frozen=True)
class TNetConfig(MAMLConfig):
    """T-net: MAML with learned linear maps between the layers, which do not adapt."""

    gated: bool = False  # the MT-net
    batching: Batching = "vmap"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in {"step_sizes": "fixed", "adapted": "all"}.items():
            if getattr(self, name) != value:
                raise ValueError(f"{name} is {getattr(self, name)!r}; a T-net needs {value!r}")

    def make_net(self, problem: Problem, generator: torch.Generator) -> nn.Module:
        return Transformed(super().make_net(problem, generator))

    def make_adaptation(self, net: nn.Module, problem: Problem, generator: torch.Generator) -> Any:
        assert isinstance(net, Transformed)
        gradients = GradientAdaptation(
            net,
            supervised_loss(net, problem.losses),
            FixedStepSizes(self.inner_lr),
            num_steps=self.num_inner_steps,
            adapted=net.plain,
            first_order=self.first_order,
            batching=self.batching,
            chunk_size=self.chunk_size,
        )
        if not self.gated:
            return gradients
        params = {name: net.get_parameter(name) for name in net.plain}
        return RuleAdaptation(gradients, GatedDescent(params, self.inner_lr))

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> GradientLearner:
        net = self.make_net(problem, generator)
        kind = GatedLearner if self.gated else GradientLearner
        return kind(self, self.make_adaptation(net, problem, generator), problem, num_iterations)


class GatedLearner(GradientLearner):
    """Tosses the gates of each task in meta-training."""

    def _prior(self, num_tasks: int, generator: torch.Generator) -> Any:
        return self.adaptation.prior(num_tasks, generator)
