"""Products of float32 matrices on a processor, by the faster of the two libraries that torch carries.

torch sends them to MKL, whose kernels for other processors than Intel's use half of their vectors: on an AMD EPYC with
AVX-512, oneDNN takes .45 times the time for everything that a network multiplies. torch's only way to choose oneDNN is
to allow products of bfloat16, which oneDNN makes no use of without hardware that multiplies tiles of them (AMX). Where
it does, it is not chosen here: the accuracy of float32 is measured first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

_MAX_ERROR = 1e-5  # of a product's largest entry: float32 has 1e-6, its shorter relatives 1e-4 and more


@contextmanager
def fast_matmul() -> Iterator[None]:
    """Within it, oneDNN multiplies float32 matrices if it is as accurate as float32 on this processor.

    Also a decorator: `@fast_matmul()`. It holds for the whole process, all its threads; the setting that was there
    before comes back at the end. Rounding differs from that outside, so that what has to agree bit for bit belongs on
    one side. Products of a few thousand multiplications or fewer take longer: do not wrap what has no larger ones.
    """
    setting = _setting()
    if setting is None or not keeps_float32():
        yield
        return
    before = setting.fp32_precision
    setting.fp32_precision = "bf16"
    try:
        yield
    finally:
        setting.fp32_precision = before


def _setting() -> Any:
    """torch's setting for products by oneDNN; None where this torch has neither of the two."""
    has_library = torch.backends.mkldnn.is_available()
    return getattr(torch.backends.mkldnn, "matmul", None) if has_library else None


@cache
def keeps_float32() -> bool:
    """Whether products are as accurate as float32 where shorter numbers are allowed: measured once in a process."""
    setting = _setting()
    if setting is None:
        return False
    before = setting.fp32_precision
    setting.fp32_precision = "bf16"
    try:
        return all(_error(*pair) < _MAX_ERROR for pair in _examples())
    finally:
        setting.fp32_precision = before


def _examples() -> list[tuple[Tensor, Tensor]]:
    """What a layer multiplies, forward and backward: one net and several, wide and narrow."""
    generator = torch.Generator().manual_seed(0)
    examples = []
    for size, num_inputs, num_outputs in ((512, 300, 300), (512, 24, 64), (64, 64, 2)):
        for nets in ((), (3,)):
            x = torch.randn(*nets, size, num_inputs, generator=generator)
            weight = torch.randn(*nets, num_outputs, num_inputs, generator=generator)
            slope = torch.randn(*nets, size, num_outputs, generator=generator)
            examples += [(x, weight.mT), (slope, weight), (slope.mT, x)]
    return examples


def _error(left: Tensor, right: Tensor) -> float:
    exact = left.double() @ right.double()
    return float(((left @ right).double() - exact).abs().max() / exact.abs().max())
