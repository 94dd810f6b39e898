"""Settings of torch for the length of a context: the number of threads, and the library of matrix products.

And one for the rest of a process: that freed memory is kept.

For float32 products on CPUs torch uses MKL, whose kernels use only half the vector width on non-Intel CPUs: on an AMD
EPYC with AVX-512, oneDNN takes .45 times as long for all matrix products of a network. torch's only way to select
oneDNN is to allow bfloat16 products, which oneDNN uses only on hardware with bfloat16 tiles (AMX). There, oneDNN is not
selected: the accuracy is measured first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import torch
from torch import Tensor

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of glibc's options
_MAX_ERROR = 1e-5  # relative to a product's largest entry: float32 has 1e-6, shorter formats 1e-4 or more


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """A context, or a decorator, in which torch has `count` threads in this process; as before afterwards."""
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def fast_matmul() -> Iterator[None]:
    """A context in which oneDNN multiplies float32 matrices, if it keeps float32 accuracy on this CPU.

    Also a decorator: `@fast_matmul()`. It applies to all threads of the process; the previous setting is restored at
    the end. Rounding differs inside and outside, so keep computations that must agree bit for bit on one side. Products
    of a few thousand multiplications or fewer take longer: use it only around larger ones.
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


@cache
def keep_freed_memory() -> None:
    """Keep up to 1 GiB of freed memory in this process, where the C library is glibc; nothing elsewhere.

    glibc gives large blocks back to the system at once, and gets them anew, page by page, for the next tensor. In an
    update on images that took a sixth of the time, and more where several processes did so.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            mallopt(option, 2**30)


def _setting() -> Any:
    """torch's setting for oneDNN matrix products; None if this torch lacks the library or the setting."""
    has_library = torch.backends.mkldnn.is_available()
    return getattr(torch.backends.mkldnn, "matmul", None) if has_library else None


@cache
def keeps_float32() -> bool:
    """Whether products keep float32 accuracy when bfloat16 is allowed; measured once per process."""
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
    """Typical matrix products of a layer, forward and backward: for one net and several, wide and narrow."""
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
