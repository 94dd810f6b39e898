"""The gradient of a multi-layer perceptron's loss for many tasks at once, written out as batched products.

Back-propagation through linear layers with tanh or relu between them takes a handful of operations. When autograd
records an inner gradient, in order to differentiate through it, it takes several times as many; these ones it can
differentiate like any others, to any order. The result equals autograd's up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from metarl.nets.mlp import Linear, Tanh
from metarl.records import Examples

Params = dict[str, Tensor]  # here: weights [N, out, in] and biases [N, out], each task's own


@runtime_checkable
class Criterion(Protocol):
    """A loss per example that knows its gradient."""

    def __call__(self, prediction: Tensor, y: Tensor) -> Tensor:
        """The losses [..., Q] of predictions [..., Q, out]."""
        ...

    def slope(self, prediction: Tensor, y: Tensor) -> Tensor:
        """The gradient [..., Q, out] of each loss with respect to its prediction, itself differentiable."""
        ...


@dataclass(frozen=True)
class PerceptronLoss:
    """The mean of a criterion over the examples of N tasks, for a net of linear layers with one activation between."""

    layers: tuple[str, ...]  # their names in the net
    activation: nn.Module
    criterion: Criterion

    @staticmethod
    def of(net: nn.Module, criterion: Callable[[Tensor, Tensor], Tensor]) -> PerceptronLoss | None:
        """The loss of a net of our `Linear` with tanh or relu between, by a criterion with a slope; None for others."""
        if not isinstance(net, nn.Sequential) or not isinstance(criterion, Criterion) or len(net) % 2 == 0:
            return None
        modules, kinds = list(net), {type(module) for module in list(net)[1::2]}
        if any(type(layer) is not Linear for layer in modules[::2]) or kinds not in ({Tanh}, {nn.ReLU}):
            return None
        return PerceptronLoss(tuple(name for name, _ in net.named_children())[::2], modules[1], criterion)

    def gradient_and_losses(self, params: Params, data: Examples) -> tuple[Params, Tensor]:
        """The gradient [N, ...] of each task's loss with respect to each of its parameters, and the losses [N]."""
        values, output = self._forward(params, data.x)
        gradient: Params = {}
        for name, signal, value in self._signals(params, data, values, output):
            gradient[f"{name}.weight"] = torch.bmm(signal.mT, value)
            gradient[f"{name}.bias"] = signal.sum(1)
        return _in_order_of(params, gradient), (self.criterion(output, data.y) * _weight(data)).sum(-1)

    def stepped(self, params: Params, data: Examples, step_sizes: Mapping[str, float]) -> Params:
        """The parameters [N, ...] after one gradient step, which is part of the products; step_sizes: by name."""
        values, output = self._forward(params, data.x)
        moved: Params = {}
        for name, signal, value in self._signals(params, data, values, output):
            weight, bias = f"{name}.weight", f"{name}.bias"
            moved[weight] = torch.baddbmm(params[weight], signal.mT, value, alpha=-step_sizes[weight])
            moved[bias] = torch.add(params[bias], signal.sum(1), alpha=-step_sizes[bias])
        return _in_order_of(params, moved)

    def _forward(self, params: Params, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The inputs of each layer, and the output of the last."""
        values, output = [], x
        for name in self.layers:
            values.append(self.activation(output) if values else x)
            output = torch.baddbmm(params[f"{name}.bias"].unsqueeze(1), values[-1], params[f"{name}.weight"].mT)
        return values, output

    def _signals(
        self, params: Params, data: Examples, values: Sequence[Tensor], output: Tensor
    ) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Each layer from the last to the first: its name, the gradient with respect to its output, and its inputs."""
        weight = _weight(data)
        signal = self.criterion.slope(output, data.y) * (weight.unsqueeze(-1) if isinstance(weight, Tensor) else weight)
        for index in reversed(range(len(values))):
            name, value = self.layers[index], values[index]
            yield name, signal, value
            if index:
                signal = torch.bmm(signal, params[f"{name}.weight"])
                signal = signal * ((1 - value.square()) if isinstance(self.activation, Tanh) else (value > 0))


def _in_order_of(params: Params, parts: Params) -> Params:
    """The parts in the order of the parameters, as learned rules concatenate them."""
    return {name: parts[name] for name in params}


def _weight(data: Examples) -> Tensor | float:
    """The weight of each example in its task's mean: [N, K], or one number."""
    valid = data.valid
    return 1 / max(data.x.shape[1], 1) if valid is None else valid / valid.sum(-1, keepdim=True).clamp(min=1)
