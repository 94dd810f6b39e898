"""The gradient of a meta-objective as one graph of compiled code.

A small net's meta-gradient is hundreds of operations of a few microseconds each, and calling them takes longer than
their arithmetic. `torch.compile` with inductor turns all of them, adaptation, loss and both gradients, into a few C++
loops. The first call takes up to half a minute, and so does each new shape of the data; a C++ compiler must be there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

Objective = Callable[..., tuple[Tensor, Tensor]]  # the loss [] and a further result without gradient


class CompiledObjective:
    """A function of a module's parameters and of further arguments whose gradient is computed along with its value.

    module: the parameters are its own, read anew in each call.
    objective: reads the module's parameters and returns a loss [] and a further tensor; its operations must be ones
        that torch can trace in one graph, without torch.autograd.grad. Arguments that are not tensors are constants:
        a new value of one is compiled anew.

    Raises:
        ValueError: when there is no C++ compiler.
    """

    def __init__(self, module: nn.Module, objective: Objective) -> None:
        _check_compiler()
        self._program = _Program(module, objective)
        self._compiled = torch.compile(self._gradient, fullgraph=True, dynamic=False)

    def __call__(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        """The loss, which `backward` differentiates once with respect to the parameters, and the further result."""
        params = dict(self._program.named_parameters())
        values = {name: value.detach() for name, value in params.items()}
        gradient, (loss, result) = self._compiled(values, *inputs)
        return _WithGradient.apply(loss, list(gradient.values()), *params.values()), result

    def _gradient(self, params: dict[str, Tensor], *inputs: Any) -> Any:
        def of_params(params: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            return functional_call(self._program, params, inputs)

        return grad_and_value(of_params, has_aux=True)(params)


class _Program(nn.Module):
    """The objective as a module, for `functional_call`."""

    def __init__(self, module: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.module, self.objective = module, objective

    def forward(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        return self.objective(*inputs)


class _WithGradient(torch.autograd.Function):
    """A loss with its known gradient: autograd's link from the compiled graph to the parameters."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradient: list[Tensor], *params: Tensor) -> Tensor:
        ctx.gradient = gradient
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        return None, None, *(slopes[0] * part for part in ctx.gradient)


def _check_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler  # imports for two seconds
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ValueError("compiled is True; torch finds no C++ compiler (install g++, or leave it False)") from error
