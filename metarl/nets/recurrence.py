"""A GRU over whole sequences on the CPU, as one autograd function.

Cho et al. Learning phrase representations using RNN encoder-decoder for statistical machine translation (2014); in
torch's form, whose reset gate acts after the recurrent product.

torch's own CPU layer records every step's operations: a dozen forward and twice as many backward, with weight gradients
of their own. Here a step takes a few operations in place; whatever depends on saved values alone is computed for a
stretch of steps at once, and so are the weight gradients. A stretch fits the processor's cache, and one thread computes
it all: the products are too small to be shared, up to some 256 rows of 256 units. Results and gradients equal torch's
up to rounding. torch's LSTM is one call of oneDNN and faster than this could be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metarl.torch_settings import torch_threads

_STRETCH = 2**16  # number of gates' entries in a stretch of steps; measured: best between 2^15 and 2^17


def gru(x: Tensor, hidden: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """The hidden states [T, B, H] of a GRU after each of the items x [T, B, in], from hidden [B, H].

    weights: as `torch.gru_cell` takes them: [3H, in], [3H, H], [3H] and [3H], with the reset, update and new gates.
    It can be differentiated once.
    """
    return _GRU.apply(x, hidden, *weights)  # pyright: ignore[reportReturnType]


class _GRU(torch.autograd.Function):
    @staticmethod
    @torch_threads(1)
    def forward(ctx: Any, x: Tensor, start: Tensor, w_in: Tensor, w_rec: Tensor, b_in: Tensor, b_rec: Tensor) -> Tensor:
        (num_steps, rows, _), size = x.shape, start.shape[1]
        # tanh(a) is 2 sigmoid(2 a) - 1: the new gate's weights are doubled here, and all gates are sigmoids.
        scale = torch.cat([b_in.new_ones(2 * size), b_in.new_full((size,), 2.0)])
        to_gates, weight = (w_rec * scale.unsqueeze(1)).t().contiguous(), w_in * scale.unsqueeze(1)
        bias = torch.cat([b_in[: 2 * size] + b_rec[: 2 * size], 2 * b_rec[2 * size :], 2 * b_in[2 * size :]])
        hidden = x.new_empty(num_steps + 1, rows, size)  # before the first item and after each
        hidden[0] = start
        gates = x.new_empty(num_steps, rows, 3 * size)  # reset, update; twice the new gate's part before the reset
        new = x.new_empty(num_steps, rows, size)
        reset, update, recurrent = (gate.unbind(0) for gate in gates.split(size, 2))
        sigmoids = gates[..., : 2 * size].unbind(0)
        each_gates, each_new, each_hidden = (value.unbind(0) for value in (gates, new, hidden))
        state, minus_one = each_hidden[0], -torch.ones_like(start)
        for first, inputs in _input_products(x, weight, bias):
            of_gates, of_new = inputs[..., : 3 * size].unbind(0), inputs[..., 3 * size :].unbind(0)
            for t, (input_gates, input_new) in enumerate(zip(of_gates, of_new, strict=True), first):
                torch.addmm(input_gates, state, to_gates, out=each_gates[t])
                sigmoids[t].sigmoid_()
                candidate = torch.addcmul(input_new, reset[t], recurrent[t], out=each_new[t]).sigmoid_()
                torch.add(minus_one, candidate, alpha=2, out=candidate)
                state = torch.lerp(candidate, state, update[t], out=each_hidden[t + 1])
        ctx.save_for_backward(x, hidden, gates, new, w_in, w_rec)
        return hidden[1:]

    @staticmethod
    @once_differentiable
    @torch_threads(1)
    def backward(ctx: Any, slope: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, hidden, gates, new, w_in, w_rec = ctx.saved_tensors
        num_steps, rows, size = new.shape
        of_weights = _WeightSlopes(x, w_in, w_rec, hidden, with_inputs=ctx.needs_input_grad[0])
        length = _stretch(num_steps, rows * 3 * size)
        factors, deltas = x.new_empty(2, length, rows, 3, size)  # d gate before its nonlinearity / d hidden; d loss
        through_new, rest = x.new_empty(2, length, rows, size)
        slopes = x.new_empty(length + 1, rows, size)  # with respect to the hidden states
        slopes[length] = slope[-1]
        before = (slope.new_zeros(rows, size), *slope.unbind(0))  # what the loss adds to the state before step t
        updates, each_slopes, each_factors, each_deltas = (
            v.unbind(0) for v in (gates[..., size : 2 * size], slopes, factors, deltas)
        )
        flat_deltas = deltas.flatten(2).unbind(0)
        for stop in range(num_steps, 0, -length):
            first, count = max(0, stop - length), min(length, stop)
            reset, update, recurrent = gates[first:stop].split(size, 2)
            n, h, through, left = new[first:stop], hidden[first:stop], through_new[:count], rest[:count]
            of_reset, of_update, of_new = factors[:count].unbind(2)
            torch.sub(1, update, out=left)
            torch.addcmul(left, left * n, n, value=-1, out=through)  # (1 - update) (1 - new^2)
            torch.sub(h, n, out=of_update).mul_(update).mul_(left)
            torch.mul(through, reset, out=of_new)
            torch.sub(0.5, reset, alpha=0.5, out=left).mul_(of_new)
            torch.mul(left, recurrent, out=of_reset)
            state = each_slopes[count]
            if stop < num_steps:
                state.copy_(each_slopes[0])
            for t in range(count - 1, -1, -1):
                torch.mul(state.unsqueeze(1), each_factors[t], out=each_deltas[t])
                state = torch.addcmul(before[first + t], state, updates[first + t], out=each_slopes[t])
                state.addmm_(flat_deltas[t], w_rec)
            of_weights.add_recurrent(first, stop, deltas)
            torch.mul(slopes[1 : count + 1], through, out=deltas[:count, :, 2])  # the new gate's input is not reset
            of_weights.add_inputs(first, stop, deltas)
        return of_weights.inputs, slopes[0].clone(), *of_weights.parts


class _WeightSlopes:
    """The loss's gradients with respect to a layer's inputs and weights, summed over stretches of steps."""

    def __init__(self, x: Tensor, w_in: Tensor, w_rec: Tensor, hidden: Tensor, *, with_inputs: bool) -> None:
        self.rows = x.shape[1]
        self.x, self.hidden, self.w_in = x.flatten(0, 1), hidden.flatten(0, 1), w_in
        self.inputs = x.new_empty(x.shape) if with_inputs else None  # in order, whatever the order of x in memory
        self.parts = (torch.zeros_like(w_in), torch.zeros_like(w_rec), *w_in.new_zeros(2, len(w_in)))

    def add_recurrent(self, first: int, stop: int, deltas: Tensor) -> None:
        """Add the steps from `first` to `stop` of the recurrent weights; deltas: [length, B, gates, H]."""
        delta = deltas[: stop - first].view(-1, len(self.w_in))
        self.parts[1].addmm_(delta.t(), self.hidden[first * self.rows : stop * self.rows])
        self.parts[3].add_(delta.sum(0))

    def add_inputs(self, first: int, stop: int, deltas: Tensor) -> None:
        """Add the steps of the input weights, and set those of the inputs."""
        delta, steps = deltas[: stop - first].view(-1, len(self.w_in)), slice(first * self.rows, stop * self.rows)
        self.parts[0].addmm_(delta.t(), self.x[steps])
        self.parts[2].add_(delta.sum(0))
        if self.inputs is not None:
            torch.mm(delta, self.w_in, out=self.inputs.flatten(0, 1)[steps])


def _input_products(x: Tensor, weight: Tensor, bias: Tensor) -> Iterator[tuple[int, Tensor]]:
    """For each stretch of steps, its first step's number and the input parts [steps, B, 4 H], all in the same memory.

    weight: [3H, in], of the reset, update and new gates. bias [4H]: of the reset and the update gate, of the new gate's
    recurrent part, and of the new gate.
    """
    (num_steps, rows, _), size = x.shape, len(bias) // 4
    length = _stretch(num_steps, rows * 3 * size)
    memory, items = x.new_empty(length * rows, 4 * size), x.flatten(0, 1)
    memory[:, 2 * size : 3 * size] = bias[2 * size : 3 * size]
    parts = ((slice(2 * size), slice(2 * size)), (slice(3 * size, None), slice(2 * size, None)))
    for first in range(0, num_steps, length):
        some = items[first * rows : (first + length) * rows]
        for where, which in parts:
            torch.addmm(bias[where], some, weight[which].t(), out=memory[: len(some), where])
        yield first, memory[: len(some)].unflatten(0, (-1, rows))


def _stretch(num_steps: int, entries_per_step: int) -> int:
    """The number of steps in a stretch."""
    return max(1, min(num_steps, _STRETCH // max(entries_per_step, 1)))
