"""Gradient-based adaptation: the state is the network's parameters; those that adapt have a task axis.

Finn, Abbeel, Levine. Model-agnostic meta-learning for fast adaptation of deep networks (2017).
Raghu et al. Rapid learning or feature reuse? Towards understanding the effectiveness of MAML (2020): the head.
Oh et al. BOIL: towards representation change for few-shot learning (2021): the body.

The variants of MAML are composed from parts: the step sizes (metarl/adaptation/step_sizes.py), the names of the
parameters that adapt, whether the outer gradient differentiates through the inner one (`first_order`), the number of
steps, and how tasks are batched. A loss is a function of one task's parameters and data, so any module with parameters
can adapt: a regression net, or a policy with its log standard deviation. Where a perceptron adapts to a supervised
loss, the inner gradient is written out: see metarl/adaptation/perceptron.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from metarl.adaptation.batching import BATCHINGS, Batching, over_tasks
from metarl.adaptation.perceptron import PerceptronLoss
from metarl.nets.mlp import takes_tasks
from metarl.records import Examples
from metarl.rl.losses import mean_over_examples

Params = dict[str, Tensor]
TaskLoss = Callable[[Params, Any], Tensor]  # all parameters and a task's data to a scalar; for N tasks, to [N]
StepSizes = Callable[[str, int], "float | Tensor"]  # see metarl/adaptation/step_sizes.py


class GradientAdaptation(nn.Module):
    """Gradient descent on each task's loss, from the meta-learned parameters of `net`.

    net: the network whose parameters are meta-learned; adaptation never modifies it, and its modules must be safe
        under vmap of grad (see metarl/nets/mlp.py).
    loss: the loss of one task, given all parameters by name and the task's data; `supervised_loss` makes one. For
        "batched" it must also accept many tasks and return one loss per task.
    step_sizes: called as step_sizes(name, step); if it is an nn.Module, it is meta-learned too.
    adapted: names of the parameters that adapt; None for all. The others are shared and have no task axis.
    first_order: ignore the derivative of the inner gradient.
    batching: how tasks are batched, with the same result up to rounding: "batched" matrix products, where all modules
        of the net accept a task axis (see `metarl.nets.mlp.takes_tasks`), "vmap" over all tasks in one call, "chunks"
        of `chunk_size` tasks, or a "loop".

    Raises:
        ValueError: when a parameter or batching is unknown, or a number is below one.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: TaskLoss,
        step_sizes: StepSizes,
        *,
        num_steps: int = 1,
        adapted: Iterable[str] | None = None,
        first_order: bool = False,
        batching: Batching = "batched",
        chunk_size: int = 8,
    ) -> None:
        super().__init__()
        names = [name for name, _ in net.named_parameters()]
        self.adapted = tuple(names) if adapted is None else tuple(adapted)
        for name in self.adapted:
            if name not in names:
                raise ValueError(f"adapted has {name!r}; must be among {', '.join(names)}")
        if not self.adapted:
            raise ValueError("adapted is empty; at least one parameter must adapt")
        if num_steps < 1:
            raise ValueError(f"num_steps is {num_steps}; must be at least 1")
        if chunk_size < 1:
            raise ValueError(f"chunk_size is {chunk_size}; must be at least 1")
        if batching not in BATCHINGS:
            raise ValueError(f"batching is {batching!r}; must be one of {', '.join(BATCHINGS)}")
        if batching == "batched" and not takes_tasks(net):
            raise ValueError(f"batching is 'batched', and not all modules of {type(net).__name__} take a task axis")
        self.net, self.loss, self.step_sizes = net, loss, step_sizes
        self.num_steps, self.first_order = num_steps, first_order
        self.batching: Batching = batching
        self.chunk_size = chunk_size
        self._dims = {name: 0 if name in self.adapted else None for name in names}

    def prior(self, num_tasks: int) -> Params:
        """The meta-learned parameters: [num_tasks, ...] for those that adapt, [...] for the others."""
        return {
            name: value if self._dims[name] is None else value.expand(num_tasks, *value.shape)
            for name, value in self.net.named_parameters()
        }

    def adapt(self, state: Params, context: Any, num_steps: int | None = None) -> Params:
        """The state after gradient steps on data [N, K, ...]; num_steps: None for the adaptation's own number."""
        return self.path(state, context, num_steps)[-1]

    def path(
        self, state: Params, context: Any, num_steps: int | None = None, *, first_order: bool | None = None
    ) -> list[Params]:
        """The states before the first step and after each step: one more than there are steps."""
        states = [state]
        for step in range(self.num_steps if num_steps is None else num_steps):
            states.append(self.step(states[-1], context, step, first_order=first_order))
        return states

    def step(self, state: Params, context: Any, step: int = 0, *, first_order: bool | None = None) -> Params:
        """The state after one gradient step; `step` is its number, from zero."""
        first_order = self.first_order if first_order is None else first_order
        sizes = {name: self.step_sizes(name, step) for name in self.adapted}
        differentiates = torch.is_grad_enabled() and not first_order
        loss = self._written_out(context) if differentiates or not torch.is_grad_enabled() else None
        numbers = {name: size for name, size in sizes.items() if isinstance(size, float)}
        if loss is not None and len(numbers) == len(sizes):
            return loss.stepped(state, context, numbers)
        with torch.set_grad_enabled(differentiates):
            gradient = self.gradient(state, context)
        return state | {name: state[name] - sizes[name] * gradient[name] for name in self.adapted}

    def gradient(self, state: Params, context: Any) -> Params:
        """The gradient of each task's loss with respect to the parameters that adapt: [N, ...] each."""
        return self.gradient_and_losses(state, context)[0]

    def gradient_and_losses(self, state: Params, context: Any) -> tuple[Params, Tensor]:
        """The gradient and each task's loss [N]."""
        if (loss := self._written_out(context)) is not None:
            return loss.gradient_and_losses(state, context)
        if self.batching == "batched":
            return self._batched_gradient(state, context)

        def of_task(params: Params, data: Any) -> tuple[Params, Tensor]:
            own = {name: params[name] for name in self.adapted}
            return grad_and_value(lambda own: self.loss(params | own, data))(own)

        return self._over_tasks(of_task)(state, context)

    @property
    def is_written_out(self) -> bool:
        """Whether the gradient on data without a context is written out instead of autograd's."""
        return self._perceptron_loss is not None

    @property
    def _perceptron_loss(self) -> PerceptronLoss | None:
        """The loss as one whose gradient is written out, where it is and all parameters adapt."""
        adapts_all = len(self.adapted) == len(self._dims)
        if self.batching != "batched" or not adapts_all or not isinstance(self.loss, SupervisedLoss):
            return None
        return self.loss.written_out

    def _written_out(self, context: Any) -> PerceptronLoss | None:
        loss = self._perceptron_loss
        return loss if loss is not None and context.context is None else None

    def _batched_gradient(self, state: Params, context: Any) -> tuple[Params, Tensor]:
        """The gradient of the summed loss: adapted parameters are not shared, so it holds each task's own gradient."""
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            own = {name: state[name] for name in self.adapted}
            if not create_graph or not all(value.requires_grad for value in own.values()):
                own = {name: value.detach().requires_grad_() for name, value in own.items()}
            losses = self.losses(state | own, context)
            gradients = torch.autograd.grad(losses.sum(), list(own.values()), create_graph=create_graph)
        return dict(zip(self.adapted, gradients, strict=True)), losses

    def losses(self, state: Params, data: Any) -> Tensor:
        """Each task's loss on data [N, Q, ...]: [N].

        Raises:
            ValueError: when the loss of many tasks is not one number per task.
        """
        losses = self._over_tasks(self.loss)(state, data)
        if losses.ndim != 1:
            raise ValueError(f"loss has shape {tuple(losses.shape)}; 'batched' needs one number per task")
        return losses

    def predict(self, state: Params, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Outputs [N, Q, out] for inputs x [N, Q, in]; context [N, S, in] for nets that take one."""
        inputs = (x,) if context is None else (x, context)
        return self._over_tasks(lambda params, *inputs: functional_call(self.net, params, inputs))(state, *inputs)

    def _over_tasks(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return over_tasks(function, self._dims, self.batching, self.chunk_size)

    def get_extra_state(self) -> str:
        return self.batching

    def set_extra_state(self, state: str) -> None:
        """Ignored: a checkpoint records the batching it was made with, but the settings choose the one to use."""


class SupervisedLoss:
    """The mean of a criterion over a task's Examples; data with a context pass it to the net after x.

    criterion: called as criterion(predictions, y), returns one number per example, [..., K].
    """

    def __init__(self, net: nn.Module, criterion: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.net, self.criterion = net, criterion
        self.written_out = PerceptronLoss.of(net, criterion)

    def __call__(self, params: Params, data: Examples) -> Tensor:
        prediction = functional_call(self.net, params, inputs_of(data))
        return mean_over_examples(self.criterion(prediction, data.y), data.valid)


def supervised_loss(net: nn.Module, criterion: Callable[[Tensor, Tensor], Tensor]) -> SupervisedLoss:
    """The loss of few-shot tasks: see `SupervisedLoss`."""
    return SupervisedLoss(net, criterion)


def inputs_of(data: Examples) -> tuple[Tensor, ...]:
    """The positional arguments of the net."""
    return (data.x,) if data.context is None else (data.x, data.context)


def parameters_of(net: nn.Module, part: Literal["all", "head", "body", "bias"]) -> list[str]:
    """Names of all parameters, or those of the last module that has any (ANIL), the rest (BOIL), or the biases.

    Raises:
        ValueError: when there are none.
    """
    names = [name for name, _ in net.named_parameters()]
    last = names[-1].rpartition(".")[0] if names else ""
    parts: Mapping[str, list[str]] = {
        "all": names,
        "head": [name for name in names if name.rpartition(".")[0] == last],
        "body": [name for name in names if name.rpartition(".")[0] != last],
        "bias": [name for name in names if name.rpartition(".")[2] == "bias"],
    }
    if part not in parts:
        raise ValueError(f"part is {part!r}; must be one of {', '.join(parts)}")
    if not parts[part]:
        raise ValueError(f"part is {part!r}, and {type(net).__name__} has no such parameters")
    return parts[part]
