"""T-nets and MT-nets: linear maps between layers that do not adapt, and learned gates on the parameters that do.

Lee, Choi. Gradient-based meta-learning with learned layerwise metric and subspace (2018).

Deviations: 1. gates are open with probability .9 at first, and are sampled separately for a layer's weights, its biases
and the scales and shifts of its normalisation, which adapt in both nets; 2. in meta-training gates are hard, with
straight-through gradients of soft ones; at meta-test each takes its more probable value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metarl.adaptation.batching import Batching
from metarl.adaptation.gradient import GradientAdaptation, Params, supervised_loss
from metarl.adaptation.step_sizes import FixedStepSizes
from metarl.adaptation.update_rules import RuleAdaptation
from metarl.fewshot.gradient_learner import AdaptsBySteps, GradientLearner, InnerStepsConfig, OuterStepsConfig
from metarl.fewshot.problem import Problem
from metarl.fewshot.reparametrised import Reparametrised
from metarl.nets.mlp import key_of
from metarl.parallel import shared_noise


class Transformed(Reparametrised):
    """A T-net: a linear map [out, out] after each linear layer or convolution, initialised with the identity."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        weights = {name: net.get_parameter(name) for name in self.matrices}
        self.maps = nn.ParameterDict(
            {key_of(name): torch.eye(len(w), dtype=w.dtype, device=w.device) for name, w in weights.items()}
        )

    @property
    def plain(self) -> list[str]:
        """The names of all parameters except the maps."""
        return [f"net.{name}" for name, _ in self.net.named_parameters()]

    def effective(self) -> Params:
        params: Params = dict(self.net.named_parameters())
        for name in self.matrices:
            after = self.maps[key_of(name)]
            params[name] = (after @ params[name].flatten(1)).view_as(params[name])
            bias = f"{name.rpartition('.')[0]}.bias".removeprefix(".")
            if bias in params:
                params[bias] = after @ params[bias]
        return params


class GatedDescent(nn.Module):
    """Gradient descent on the units of each layer selected by a learned gate.

    A gate is a binary variable per unit (a filter or an output), sampled per task in meta-training with
    straight-through gradients (Gumbel-softmax, Jang et al. 2017, at temperature one). At meta-test each gate takes its
    more probable value. Units are the first axis of matrices, and all entries of vectors.
    """

    def __init__(self, params: Mapping[str, Tensor], inner_lr: float, *, open_share: float = 0.9) -> None:
        super().__init__()
        self.inner_lr = inner_lr
        odds = math.log(open_share / (1 - open_share))
        self.logits = nn.ParameterDict(
            {key_of(name): value.new_full((len(value),), odds) for name, value in params.items()}
        )

    def start(self, params: Params, generator: torch.Generator | None) -> dict[str, Any]:
        return {"gates": {name: self._gate(name, value, generator) for name, value in params.items()}}

    def _gate(self, name: str, value: Tensor, generator: torch.Generator | None) -> Tensor:
        """Ones and zeros [N, out, 1, ...]."""
        logits = self.logits[key_of(name)].expand(len(value), -1)  # [N, out]
        if generator is None:
            gate = (logits > 0).to(logits.dtype)
        else:
            uniform = torch.rand(logits.shape, generator=generator, dtype=logits.dtype, device=logits.device)
            soft = (logits + torch.logit(uniform, eps=1e-6)).sigmoid()
            gate = (soft > 0.5).to(soft.dtype) + (soft - soft.detach())
        return gate.view(*gate.shape, *(1,) * (value.ndim - 2))

    def forward(
        self, params: Params, gradient: Params, losses: Tensor, memory: dict[str, Any]
    ) -> tuple[Params, dict[str, Any]]:
        gates = memory["gates"]
        return {name: v - self.inner_lr * gates[name] * gradient[name] for name, v in params.items()}, memory


@dataclass(frozen=True)
class TNetConfig(OuterStepsConfig, InnerStepsConfig):
    """T-net: MAML with learned linear maps between the layers, which do not adapt."""

    gated: bool = False  # whether learned gates select the units that adapt (MT-net)
    batching: Batching = "vmap"  # way of batching over tasks; results agree up to rounding

    def __post_init__(self) -> None:
        OuterStepsConfig.__post_init__(self)
        InnerStepsConfig.__post_init__(self)

    def make_net(self, problem: Problem, generator: torch.Generator) -> nn.Module:
        return Transformed(super().make_net(problem, generator))

    def make_adaptation(self, net: nn.Module, problem: Problem, generator: torch.Generator) -> AdaptsBySteps:
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
    """A gradient learner that samples each task's gates in meta-training."""

    def _prior(self, num_tasks: int, generator: torch.Generator) -> Any:
        assert isinstance(self.adaptation, RuleAdaptation)
        with shared_noise():
            return self.adaptation.prior(num_tasks, generator)
