"""Counting what a host asks of a GPU, on torch's device "meta", whose tensors have shapes but no numbers.

Code that asks for a number is answered as if nothing were wrong (no entry of a mask is true in "any", all are in
"all"), and the question counts as a wait: there, the host of a GPU waits for the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

META = torch.device("meta")

_aten: Any = torch.ops.aten
_NUMBERLESS = {  # operations without a kernel, besides views
    _aten.detach, _aten.alias, _aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty,
    _aten.new_empty_strided, _aten._unsafe_view, _aten._reshape_alias, _aten.lift_fresh,
}  # fmt: skip
_SCALARS = {_aten._local_scalar_dense, _aten.item, _aten.is_nonzero}
_TINY = 1e-6  # the number that code is given which asks for one


@dataclass(frozen=True)
class Counts:
    """What the host has done."""

    launches: int = 0
    waits: int = 0

    def __sub__(self, other: Counts) -> Counts:
        return Counts(self.launches - other.launches, self.waits - other.waits)


class OnMeta(torch.Generator):
    """A generator on the device "meta", where nothing is drawn."""

    device = META


class Counter(TorchDispatchMode):
    """Counts launches and waits, and answers those who ask a tensor without numbers."""

    def __init__(self) -> None:
        super().__init__()
        self._launches = self._waits = 0
        self._made_by: Any = WeakTensorKeyDictionary()  # what made the tensors [] that may be asked

    @property
    def counts(self) -> Counts:
        return Counts(self._launches, self._waits)

    def launch(self, number: int = 1) -> None:
        self._launches += number

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operation, kwargs = func.overloadpacket, kwargs or {}
        given = args[0] if args and isinstance(args[0], Tensor) else None
        if given is not None and given.device == META and _is_for_host(operation, args, kwargs):
            self._waits += 1
            return self._answer(given) if operation in _SCALARS else torch.zeros(given.shape, dtype=given.dtype)
        if operation is _aten.exponential_:  # which torch lacks with a generator on this device
            result: Any = given
        else:
            result = func(*args, **kwargs)
        if _reads_mask(operation, args):
            self._waits += 1
        elif func.namespace == "aten" and not _is_free(func, given, result):
            self._launches += 1
        if isinstance(result, Tensor) and result.ndim == 0:
            self._made_by[result] = operation
        return result

    def _answer(self, asked: Tensor) -> Any:
        if asked.dtype == torch.bool:
            return self._made_by.get(asked) is not _aten.any
        return _TINY if asked.is_floating_point() else 1


class CudaLayers(TorchFunctionMode):
    """Stands in for what torch computes in one call on a GPU and in many elsewhere."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("gru_cell", "lstm_cell"):
            self._counter.launch(3)
            return torch.empty_like(args[1]) if name == "gru_cell" else tuple(map(torch.empty_like, args[1]))
        if name in ("gru", "lstm") and isinstance(args[2], (list, tuple)):
            x, start, weights = args[:3]
            states = (start,) if name == "gru" else start
            read, *last = _Layer.apply(self._counter, x, len(states), *states, *weights)
            return read, *last
        return func(*args, **(kwargs or {}))


class _Layer(torch.autograd.Function):
    """The shapes of a recurrent layer of cuDNN."""

    @staticmethod
    def forward(ctx: Any, counter: Counter, x: Tensor, num_states: int, *given: Tensor) -> Any:
        ctx.counter = counter
        ctx.save_for_backward(x, *given)
        counter.launch(2 * len(x) + 1)
        return x.new_empty(*x.shape[:2], given[0].shape[-1]), *(torch.empty_like(state) for state in given[:num_states])

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, *given = ctx.saved_tensors
        ctx.counter.launch(2 * len(x) + 2)
        return None, torch.empty_like(x), None, *(torch.empty_like(value) for value in given)


@contextmanager
def counting() -> Iterator[Counter]:
    """A context that counts what happens on the device "meta"."""
    from torch.fx.experimental import _config

    def fused_step(_: torch.optim.Adam) -> None:  # torch has none on this device
        counter.launch()

    counter = Counter()
    masks: Any = _config.patch(meta_nonzero_assume_all_nonzero=True)  # pyright: ignore[reportAttributeAccessIssue]
    with mock.patch.object(torch.optim.Adam, "step", fused_step), masks, CudaLayers(counter), counter:
        yield counter


def _is_free(func: Any, given: Tensor | None, result: Any) -> bool:
    """Whether an operation needs no kernel: a view, an allocation, or nothing to be done."""
    return func.is_view or func.overloadpacket in _NUMBERLESS or (result is given and not func._schema.is_mutable)


def _is_for_host(operation: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operation on a tensor of the device gives numbers to the host."""
    devices = [value for value in (*args[1:], kwargs.get("device")) if isinstance(value, torch.device)]
    return operation in _SCALARS or any(device != META for device in devices)


def _reads_mask(operation: Any, args: Any) -> bool:
    """Whether an operation's result has a shape that depends on numbers."""
    if operation in (_aten.nonzero, _aten.masked_select, _aten.equal):
        return True
    if operation not in (_aten.index, _aten.index_put, _aten.index_put_):
        return False
    return any(index is not None and index.dtype == torch.bool for index in args[1])
