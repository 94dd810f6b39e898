"""The steps of a GRU compiled by numba: what `metarl.nets.recurrence` computes by torch, in float32.

Numba is optional (the extra `fast`). The first use on a machine compiles these functions, in some seconds; numba keeps
them on disk, next to this file or in the user's cache folder, and later processes load them. Products of matrices are
written out in blocks of four by four, which at a GRU's sizes take no longer than a library's, and need no threads.

Cephes mathematical library (Moshier 1989), for the coefficients of the exponential function.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy import float32, int32
from numpy.typing import NDArray

Array = NDArray[np.float32]

# A product and a sum may become one operation; all else is as IEEE has it, so NaN stays NaN.
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}


@njit(**_OPTIONS)
def _sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), in operations that the processor applies to many numbers at once."""
    x = -x
    x = float32(87) if x > float32(87) else x
    x = float32(-87) if x < float32(-87) else x
    power = np.floor(x * float32(1.44269504) + float32(0.5))  # exp(x) is 2^power exp(rest)
    rest = x - power * float32(0.693359375) + power * float32(2.12194440e-4)
    series = float32(1.9875691500e-4) * rest + float32(1.3981999507e-3)
    series = series * rest + float32(8.3334519073e-3)
    series = series * rest + float32(4.1665795894e-2)
    series = series * rest + float32(1.6666665459e-1)
    series = series * rest + float32(5.0000001201e-1)
    exponent = int32((int32(power) + int32(127)) << int32(23)).view(np.float32)  # 2^power, by a float's bits
    return float32(1) / (float32(1) + (series * rest * rest + rest + float32(1)) * exponent)


@njit(**_OPTIONS)
def _add_product(left: Array, right: Array, out: Array) -> None:
    """Add left [R, K] times right [K, C] to out [R, C]."""
    (rows, inner), columns = left.shape, right.shape[1]
    whole_rows, whole_inner = rows - rows % 4, inner - inner % 4
    for i in range(0, whole_rows, 4):
        for k in range(0, whole_inner, 4):
            a00, a01, a02, a03 = left[i, k], left[i, k + 1], left[i, k + 2], left[i, k + 3]
            a10, a11, a12, a13 = left[i + 1, k], left[i + 1, k + 1], left[i + 1, k + 2], left[i + 1, k + 3]
            a20, a21, a22, a23 = left[i + 2, k], left[i + 2, k + 1], left[i + 2, k + 2], left[i + 2, k + 3]
            a30, a31, a32, a33 = left[i + 3, k], left[i + 3, k + 1], left[i + 3, k + 2], left[i + 3, k + 3]
            for j in range(columns):
                b0, b1, b2, b3 = right[k, j], right[k + 1, j], right[k + 2, j], right[k + 3, j]
                out[i, j] += a00 * b0 + a01 * b1 + a02 * b2 + a03 * b3
                out[i + 1, j] += a10 * b0 + a11 * b1 + a12 * b2 + a13 * b3
                out[i + 2, j] += a20 * b0 + a21 * b1 + a22 * b2 + a23 * b3
                out[i + 3, j] += a30 * b0 + a31 * b1 + a32 * b2 + a33 * b3
    for i in range(rows):  # what is left over by the blocks
        for k in range(whole_inner if i < whole_rows else 0, inner):
            factor = left[i, k]
            for j in range(columns):
                out[i, j] += factor * right[k, j]


@njit("void(f4[:,:,::1], f4[:,::1], f4[:,:,::1], f4[:,:,::1], f4[:,:,::1])", **_OPTIONS)
def forward_steps(inputs: Array, to_gates: Array, hidden: Array, gates: Array, new: Array) -> None:
    """As `recurrence.TorchSteps.forward`."""
    num_steps, rows, size = new.shape
    for t in range(num_steps):
        gates[t] = inputs[t, :, : 3 * size]
        _add_product(hidden[t], to_gates, gates[t])
        for i in range(rows):
            for j in range(2 * size):
                gates[t, i, j] = _sigmoid(gates[t, i, j])
            for j in range(size):
                reset, update, recurrent = gates[t, i, j], gates[t, i, size + j], gates[t, i, 2 * size + j]
                candidate = _sigmoid(inputs[t, i, 3 * size + j] + reset * recurrent)
                candidate = candidate + candidate - float32(1)
                new[t, i, j] = candidate
                hidden[t + 1, i, j] = candidate + update * (hidden[t, i, j] - candidate)


@njit(
    "void(f4[:,:,::1], f4[:,::1], f4[:,:,::1], f4[:,:,::1], f4[:,:,::1], f4[:,:,::1], f4[:,:,::1], f4[:,:,::1])",
    **_OPTIONS,
)
def backward_steps(
    before: Array, w_rec: Array, hidden: Array, gates: Array, new: Array, slopes: Array, deltas: Array, inputs: Array
) -> None:
    """As `recurrence.TorchSteps.backward`."""
    num_steps, rows, size = new.shape
    for t in range(num_steps - 1, -1, -1):
        for i in range(rows):
            for j in range(size):
                reset, update, recurrent = gates[t, i, j], gates[t, i, size + j], gates[t, i, 2 * size + j]
                candidate, slope, rest = new[t, i, j], slopes[t + 1, i, j], float32(1) - update
                of_input = slope * rest * (float32(1) - candidate * candidate)
                of_new = of_input * reset
                deltas[t, i, j] = of_new * (float32(0.5) - float32(0.5) * reset) * recurrent
                deltas[t, i, size + j] = slope * (hidden[t, i, j] - candidate) * update * rest
                deltas[t, i, 2 * size + j] = of_new
                inputs[t, i, j] = of_input
                slopes[t, i, j] = before[t, i, j] + slope * update
        _add_product(deltas[t], w_rec, slopes[t])
