"""MAML++: learned step sizes per layer and step, and separate normalisation per step.

Antoniou, Edwards, Storkey. How to train your MAML (2019); the normalisation is their BNWB and BNRS.

A gradient step and the predictions after it use the step's own set of scales, shifts and statistics; steps beyond those
of meta-training use the last set. Scales and shifts are meta-learned and do not adapt. Statistics are computed with
each task's adapted parameters, before and after a step.

Deviations: 1. with "running" normalisation, each step's statistics are those described in the paper; its published code
keeps such statistics but normalises by the batch, which is "transductive" here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.func import functional_call

from metarl.adaptation.gradient import GradientAdaptation, Params, StepSizes, TaskLoss, parameters_of, supervised_loss
from metarl.fewshot.episode import FewShotEpisode
from metarl.fewshot.gradient_learner import GradientLearner
from metarl.fewshot.methods.maml import MAMLConfig
from metarl.fewshot.problem import Problem
from metarl.nets.mlp import key_of
from metarl.nets.norm import Norm
from metarl.records import Examples

_STATISTICS = ("running_mean", "running_var")


class PerStepNormAdaptation(GradientAdaptation):
    """Gradient descent with separate scales and shifts per step, and running statistics if layers keep any.

    adapted: without the layers' scales and shifts. Other arguments: as for `GradientAdaptation`.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: TaskLoss,
        step_sizes: StepSizes,
        *,
        num_steps: int,
        adapted: Sequence[str],
        **settings: Any,
    ) -> None:
        learned = per_step_names(net)
        if both := [name for name in adapted if name in learned]:
            raise ValueError(f"adapted has {both[0]!r}; must not include per-step normalisation parameters")
        super().__init__(net, loss, step_sizes, num_steps=num_steps, adapted=adapted, **settings)
        self._norms = [(name, module) for name, module in net.named_modules() if isinstance(module, Norm)]
        own = {name: net.get_parameter(name) for name in learned}
        self.later = nn.ParameterDict()  # sets of later steps; the first set is the net's own
        if num_steps > 1:
            self.later.update({key_of(name): value.detach().repeat(num_steps - 1, 1) for name, value in own.items()})
        for name, norm in self._norms:
            if norm.keeps_statistics:
                for kind in _STATISTICS:
                    value: torch.Tensor = getattr(norm, kind)
                    self.register_buffer(key_of(f"{name}.{kind}"), value.repeat(num_steps, 1))
                    self._dims[f"{name}.{kind}"] = None

    def prior(self, num_tasks: int) -> Params:
        """The meta-learned parameters, with the first step's set."""
        return super().prior(num_tasks) | self._set_of(0)

    def step(self, state: Params, context: Any, step: int = 0, *, first_order: bool | None = None) -> Params:
        """The state after one gradient step, with the set of step `step`, from zero."""
        return super().step(state | self._set_of(step), context, step, first_order=first_order)

    def _set_of(self, step: int) -> Params:
        index = min(step, self.num_steps - 1)
        chosen = {}
        for name in per_step_names(self.net):
            chosen[name] = self.later[key_of(name)][index - 1] if index else self.net.get_parameter(name)
        for name, _ in self._norms:
            for kind in _STATISTICS:
                if f"{name}.{kind}" in self._dims:
                    chosen[f"{name}.{kind}"] = self.get_buffer(key_of(f"{name}.{kind}"))[index]
        return chosen

    @torch.no_grad()
    def record(self, states: Sequence[Params], support: Examples, query: Examples) -> None:
        """Move each step's running statistics towards those of the tasks; a no-op if no layer keeps any.

        states: before the first step and after each step, as returned by `path`.
        """
        keeping = [norm for _, norm in self._norms if norm.keeps_statistics]
        if not keeping:
            return
        for norm in keeping:
            norm.recording = True
        try:
            for step in range(self.num_steps):
                for state, data in ((states[step] | self._set_of(step), support), (states[step + 1], query)):
                    for task in range(len(data)):
                        own = {n: v[task] if self._dims[n] == 0 else v for n, v in state.items()}
                        functional_call(self.net, own, (data.x[task],))  # updates this step's buffers in place
        finally:
            for norm in keeping:
                norm.recording = False


def per_step_names(net: nn.Module) -> list[str]:
    """The names of the scales and shifts of a net's normalisation layers."""
    norms = [name for name, module in net.named_modules() if isinstance(module, Norm)]
    return [f"{name}.{part}" for name in norms for part in ("weight", "bias")]


@dataclass(frozen=True)
class MAMLPlusPlusConfig(MAMLConfig):
    """MAML++: step sizes per layer and step, losses after every step, first order at first, cosine schedule."""

    num_inner_steps: int = 5  # number of gradient steps per task in meta-training
    step_sizes: Literal["fixed", "per_parameter", "per_step"] = "per_step"  # kind of step size: fixed or learned
    first_order_share: float = 0.1  # fraction of the iterations with a first-order outer gradient; then second order
    multi_step_share: float = 0.1  # fraction of the iterations over which losses after earlier steps fade out
    final_outer_lr: float | None = 1e-5  # step size at the last iteration, reached along half a cosine; None: constant
    per_step_norms: bool = True  # whether each step has separate scales, shifts and running statistics

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
    """A gradient learner that keeps running statistics per adaptation step."""

    def _absorb_statistics(self, states: list[Any], experience: FewShotEpisode) -> None:
        if isinstance(self.adaptation, PerStepNormAdaptation):
            self.adaptation.record(states, experience.support, experience.query)
        else:
            super()._absorb_statistics(states, experience)
