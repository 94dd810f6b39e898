"""Gradient adaptation whose every step has a normalisation of its own: scales and shifts, and running statistics.

Antoniou, Edwards, Storkey. How to train your MAML (2019): BNWB and BNRS.

A gradient step is taken with the step's own set, and predictions after it are made with the same; steps beyond those of
meta-training use the last one. Scales and shifts of the layers are meta-learned and do not adapt. Statistics are those
of adapted parameters: each task's, where it was before a step and after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from metarl.adaptation.gradient import GradientAdaptation, Params, StepSizes, TaskLoss
from metarl.nets.mlp import key_of
from metarl.nets.norm import Norm
from metarl.records import Examples

_STATISTICS = ("running_mean", "running_var")


class PerStepNormAdaptation(GradientAdaptation):
    """Gradient descent with a set of scales and shifts for each step, and of running statistics where layers keep any.

    adapted: without the layers' scales and shifts. Other arguments: as those of `GradientAdaptation`.
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
            raise ValueError(f"adapted has {both[0]!r}; what each step has of its own does not adapt")
        super().__init__(net, loss, step_sizes, num_steps=num_steps, adapted=adapted, **settings)
        self._norms = [(name, module) for name, module in net.named_modules() if isinstance(module, Norm)]
        own = {name: net.get_parameter(name) for name in learned}
        self.later = nn.ParameterDict()  # the first set is the net's own
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
        """The state after the step counted `step` from zero, with the set of that step."""
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
        """Move each step's running statistics towards those of the tasks; nothing where no layer keeps any.

        states: before the first step, after it, and so on, as `path` gives them.
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
                        functional_call(self.net, own, (data.x[task],))  # in place, in this step's buffers
        finally:
            for norm in keeping:
                norm.recording = False


def per_step_names(net: nn.Module) -> list[str]:
    """Names of the scales and shifts of a net's normalisation."""
    norms = [name for name, module in net.named_modules() if isinstance(module, Norm)]
    return [f"{name}.{part}" for name in norms for part in ("weight", "bias")]
