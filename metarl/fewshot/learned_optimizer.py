"""A learned optimizer as a few-shot learner: an LSTM moves every number of the net, from a learned beginning.

Andrychowicz et al. Learning to learn by gradient descent by gradient descent (2016).

Deviations: 1. it is trained on the loss of other examples than those it fits (after every step at first, as published,
and later after the last one); 2. where it begins is learned too; 3. all numbers share one optimizer, where the paper
has one for convolutions and one for the rest; 4. its few steps are unrolled whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarl.adaptation.batching import Batching
from metarl.adaptation.gradient import GradientAdaptation, supervised_loss
from metarl.adaptation.learned_updates import LearnedOptimizer
from metarl.adaptation.step_sizes import FixedStepSizes
from metarl.adaptation.update_rules import RuleAdaptation, UpdateRule
from metarl.fewshot.gradient_learner import GradientLearner, NetConfig, OuterStepsConfig
from metarl.fewshot.problem import Problem


@dataclass(frozen=True)
class RuleConfig(OuterStepsConfig, NetConfig):
    """A learner whose steps are those of a rule that is learned with where it begins."""

    first_order: bool = True  # the gradients that the rule reads are numbers to it
    num_inner_steps: int = 5
    batching: Batching = "vmap"
    chunk_size: int = 8  # tasks, where batching is "chunks"
    hidden_size: int = 20  # of each LSTM

    def __post_init__(self) -> None:
        OuterStepsConfig.__post_init__(self)
        NetConfig.__post_init__(self)
        for name in ("num_inner_steps", "hidden_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    def make_rule(self, generator: torch.Generator) -> UpdateRule:
        raise NotImplementedError

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> GradientLearner:
        net = self.make_net(problem, generator)
        gradients = GradientAdaptation(
            net,
            supervised_loss(net, problem.losses),
            FixedStepSizes(1.0),
            num_steps=self.num_inner_steps,
            first_order=self.first_order,
            batching=self.batching,
            chunk_size=self.chunk_size,
        )
        return GradientLearner(self, RuleAdaptation(gradients, self.make_rule(generator)), problem, num_iterations)


@dataclass(frozen=True)
class LearnedOptimizerConfig(RuleConfig):
    """A learned optimizer: two layers of LSTM for each number, with shared weights."""

    multi_step_share: float = 0.5
    scale: float = 0.1  # of its updates

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale <= 0:
            raise ValueError(f"scale is {self.scale}; it must be positive")

    def make_rule(self, generator: torch.Generator) -> LearnedOptimizer:
        return LearnedOptimizer(self.hidden_size, self.scale, generator=generator)
