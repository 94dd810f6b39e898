"""A GRU over whole sequences on the CPU, as one autograd function.

Cho et al. Learning phrase representations using RNN encoder-decoder for statistical machine translation (2014); in
torch's form, whose reset gate acts after the recurrent product.

torch's own CPU layer records every step's operations: a dozen forward and twice as many backward, with weight gradients
of their own. Here a step takes a few operations in place; whatever depends on saved values alone is computed for a
stretch of steps at once, and so are the weight gradients. A stretch fits the processor's cache, and one thread computes
it all: the products are too small to be shared, up to some 256 rows of 256 units. Results and gradients equal torch's
up to rounding. torch's LSTM is one call of oneDNN and faster than this could be.

Where numba is installed (the extra `fast`), a whole stretch of steps in single precision is one compiled call instead
(compiled_gru.py): no time then goes to Python between the operations of a step. The environment variable METARL_NUMBA=0
turns that off. Either way gives the same numbers each time, but the two differ by rounding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metarl.torch_settings import torch_threads

# Numbers of gates' entries in a stretch of steps. Measured: torch's steps are fastest between 2^15 and 2^17, compiled
# ones from 2^17 on.
_TORCH_STRETCH, _COMPILED_STRETCH = 2**16, 2**18


def gru(x: Tensor, hidden: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """The hidden states [T, B, H] of a GRU after each of the items x [T, B, in], from hidden [B, H].

    weights: as `torch.gru_cell` takes them: [3H, in], [3H, H], [3H] and [3H], with the reset, update and new gates.
    It can be differentiated once.
    """
    return _GRU.apply(x, hidden, *weights)  # pyright: ignore[reportReturnType]


class Steps(NamedTuple):
    """The recurrence over a stretch of n steps, by one library or another; both write into the tensors they are given.

    forward(inputs [n, B, 4H], to_gates [H, 3H], hidden [n + 1, B, H], gates [n, B, 3H], new [n, B, H]): from the input
    parts and the first hidden state, the later states and what the backward pass needs.

    backward(before [n, B, H], w_rec [3H, H], hidden, gates, new, slopes [n + 1, B, H], deltas [n, B, 3H],
    inputs [n, B, H]): from the loss's own slopes of the state before each step, and the last of all slopes of the
    states, the earlier slopes, those of the gates' recurrent parts, and that of the new gate's input part.
    """

    forward: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None]
    backward: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], None]
    entries: int  # number of gates' entries in a stretch

    def length(self, num_steps: int, entries_per_step: int) -> int:
        """The number of steps in a stretch, of `num_steps` in all."""
        return max(1, min(num_steps, self.entries // max(entries_per_step, 1)))


def _steps_for(dtype: torch.dtype) -> Steps:
    """Compiled steps in single precision where numba is installed and METARL_NUMBA is not 0; else torch's."""
    wanted = dtype == torch.float32 and os.environ.get("METARL_NUMBA") != "0"
    return (_compiled() if wanted else None) or _TORCH


@cache
def _compiled() -> Steps | None:
    """Steps compiled by numba; None where it is not installed, does not fit numpy or has no folder to write to."""
    try:
        from metarl.nets import compiled_gru
    except (ImportError, RuntimeError):
        return None

    def on_arrays(function: Callable[..., None]) -> Callable[..., None]:
        return lambda *tensors: function(*(tensor.detach().numpy() for tensor in tensors))

    return Steps(on_arrays(compiled_gru.forward_steps), on_arrays(compiled_gru.backward_steps), _COMPILED_STRETCH)


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
        steps = _steps_for(x.dtype)
        for first, inputs in _input_products(x, weight, bias, steps.length(num_steps, rows * 3 * size)):
            stop = first + len(inputs)
            steps.forward(inputs, to_gates, hidden[first : stop + 1], gates[first:stop], new[first:stop])
        ctx.save_for_backward(x, hidden, gates, new, w_in, w_rec)
        return hidden[1:]

    @staticmethod
    @once_differentiable
    @torch_threads(1)
    def backward(ctx: Any, slope: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, hidden, gates, new, w_in, w_rec = ctx.saved_tensors
        num_steps, rows, size = new.shape
        of_weights = _WeightSlopes(x, w_in, w_rec, hidden, with_inputs=ctx.needs_input_grad[0])
        steps, weight = _steps_for(x.dtype), w_rec.contiguous()
        length = steps.length(num_steps, rows * 3 * size)
        deltas = x.new_empty(length, rows, 3 * size)  # with respect to the gates' parts before their nonlinearity
        of_new = x.new_empty(length, rows, size)  # with respect to the new gate's input part, which is not reset
        slopes = x.new_empty(length + 1, rows, size)  # with respect to the hidden states
        before = torch.cat([slope.new_zeros(1, rows, size), slope[:-1]])  # what the loss adds before each step
        following = slope[-1]
        for stop in range(num_steps, 0, -length):
            first, count = max(0, stop - length), min(length, stop)
            slopes[count] = following
            saved = (hidden[first:stop], gates[first:stop], new[first:stop])
            written = (slopes[: count + 1], deltas[:count], of_new[:count])
            steps.backward(before[first:stop], weight, *saved, *written)
            following = slopes[0]
            of_weights.add_recurrent(first, stop, deltas)
            deltas[:count, :, 2 * size :] = of_new[:count]
            of_weights.add_inputs(first, stop, deltas)
        return of_weights.inputs, following.clone(), *of_weights.parts


def _torch_forward(inputs: Tensor, to_gates: Tensor, hidden: Tensor, gates: Tensor, new: Tensor) -> None:
    size = new.shape[2]
    reset, update, recurrent = (gate.unbind(0) for gate in gates.split(size, 2))
    of_gates, of_new = inputs[..., : 3 * size].unbind(0), inputs[..., 3 * size :].unbind(0)
    sigmoids = gates[..., : 2 * size].unbind(0)
    each_gates, each_new, each_hidden = (value.unbind(0) for value in (gates, new, hidden))
    state, minus_one = each_hidden[0], -torch.ones_like(hidden[0])
    for t, (input_gates, input_new) in enumerate(zip(of_gates, of_new, strict=True)):
        torch.addmm(input_gates, state, to_gates, out=each_gates[t])
        sigmoids[t].sigmoid_()
        candidate = torch.addcmul(input_new, reset[t], recurrent[t], out=each_new[t]).sigmoid_()
        torch.add(minus_one, candidate, alpha=2, out=candidate)
        state = torch.lerp(candidate, state, update[t], out=each_hidden[t + 1])


def _torch_backward(
    before: Tensor,
    w_rec: Tensor,
    hidden: Tensor,
    gates: Tensor,
    new: Tensor,
    slopes: Tensor,
    deltas: Tensor,
    inputs: Tensor,
) -> None:
    num_steps, rows, size = new.shape
    factors = new.new_empty(num_steps, rows, 3, size)  # d gate before its nonlinearity / d hidden
    of_reset, of_update, of_new = factors.unbind(2)
    reset, update, recurrent = gates.split(size, 2)
    rest = 1 - update
    through = torch.addcmul(rest, rest * new, new, value=-1)  # (1 - update) (1 - new^2)
    torch.sub(hidden, new, out=of_update).mul_(update).mul_(rest)
    torch.mul(through, reset, out=of_new)
    torch.sub(0.5, reset, alpha=0.5, out=rest).mul_(of_new)
    torch.mul(rest, recurrent, out=of_reset)
    parts = (before, update, slopes, factors, deltas, deltas.unflatten(2, (3, size)))
    loss, updates, states, each_factors, each_deltas, by_gate = (value.unbind(0) for value in parts)
    state = states[-1]
    for t in range(num_steps - 1, -1, -1):
        torch.mul(state.unsqueeze(1), each_factors[t], out=by_gate[t])
        state = torch.addcmul(loss[t], state, updates[t], out=states[t])
        state.addmm_(each_deltas[t], w_rec)
    torch.mul(slopes[1:], through, out=inputs)


_TORCH = Steps(_torch_forward, _torch_backward, _TORCH_STRETCH)


class _WeightSlopes:
    """The loss's gradients with respect to a layer's inputs and weights, summed over stretches of steps."""

    def __init__(self, x: Tensor, w_in: Tensor, w_rec: Tensor, hidden: Tensor, *, with_inputs: bool) -> None:
        self.rows = x.shape[1]
        self.x, self.hidden, self.w_in = x.flatten(0, 1), hidden.flatten(0, 1), w_in
        self.inputs = x.new_empty(x.shape) if with_inputs else None  # in order, whatever the order of x in memory
        self.parts = (torch.zeros_like(w_in), torch.zeros_like(w_rec), *w_in.new_zeros(2, len(w_in)))

    def add_recurrent(self, first: int, stop: int, deltas: Tensor) -> None:
        """Add the steps from `first` to `stop` of the recurrent weights; deltas: [length, B, 3H]."""
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


def _input_products(x: Tensor, weight: Tensor, bias: Tensor, length: int) -> Iterator[tuple[int, Tensor]]:
    """For each stretch of `length` steps, its first step's number and the input parts [steps, B, 4H] in one memory.

    weight: [3H, in], of the reset, update and new gates. bias [4H]: of the reset and the update gate, of the new gate's
    recurrent part, and of the new gate.
    """
    (num_steps, rows, _), size = x.shape, len(bias) // 4
    memory, items = x.new_empty(length * rows, 4 * size), x.flatten(0, 1)
    memory[:, 2 * size : 3 * size] = bias[2 * size : 3 * size]
    parts = ((slice(2 * size), slice(2 * size)), (slice(3 * size, None), slice(2 * size, None)))
    for first in range(0, num_steps, length):
        some = items[first * rows : (first + length) * rows]
        for where, which in parts:
            torch.addmm(bias[where], some, weight[which].t(), out=memory[: len(some), where])
        yield first, memory[: len(some)].unflatten(0, (min(length, num_steps - first), rows))
