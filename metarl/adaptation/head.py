"""Adaptation of the last layer only; the features before it are computed once per set of examples.

Raghu et al. Rapid learning or feature reuse? Towards understanding the effectiveness of MAML (2020).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from metarl.adaptation.batching import over_tasks
from metarl.adaptation.gradient import GradientAdaptation, Params, StepSizes, inputs_of, supervised_loss
from metarl.records import Examples


class HeadAdaptation(GradientAdaptation):
    """Gradient descent on the parameters of `net.head`, which follows `net.body`; equals adapting them by name.

    criterion: maps predictions and y to one number per example. Other arguments: as for `GradientAdaptation`.
    """

    def __init__(
        self,
        net: nn.Module,
        criterion: Callable[[Tensor, Tensor], Tensor],
        step_sizes: StepSizes,
        *,
        num_steps: int,
        **settings: Any,
    ) -> None:
        body, head = (net.get_submodule(part) for part in ("body", "head"))
        names = [f"head.{name}" for name, _ in head.named_parameters()]
        super().__init__(
            net, supervised_loss(net, criterion), step_sizes, num_steps=num_steps, adapted=names, **settings
        )
        self._body = (body,)  # in a tuple, so its parameters are not registered twice
        self._head = (
            GradientAdaptation(
                head,
                supervised_loss(head, criterion),
                lambda name, step: step_sizes(f"head.{name}", step),
                num_steps=num_steps,
                first_order=self.first_order,
            ),
        )

    def path(
        self, state: Params, context: Examples, num_steps: int | None = None, *, first_order: bool | None = None
    ) -> list[Params]:
        """The states before the first step and after each step: one more than there are steps."""
        features = replace(context, x=self._features(state, context), context=None)
        own = {name.removeprefix("head."): state[name] for name in self.adapted}
        heads = self._head[0].path(own, features, num_steps, first_order=first_order)
        return [state | {f"head.{name}": value for name, value in head.items()} for head in heads]

    def _features(self, state: Params, data: Examples) -> Tensor:
        """The head's inputs: [N, K, D]."""
        body = {name.removeprefix("body."): value for name, value in state.items() if name not in self.adapted}
        batching = "vmap" if self.batching == "batched" else self.batching
        dims = dict.fromkeys(body, None)
        call = over_tasks(
            lambda params, *inputs: functional_call(self._body[0], params, inputs), dims, batching, self.chunk_size
        )
        return call(body, *inputs_of(data))
