"""Noise that does not depend on the number of processes: drawn for all tasks by each, which keeps that of its own.

torch's functions that draw are replaced by ones that look whether they are in a context of `noise_of_all`. A
TorchFunctionMode, which needs no replacement, would slow each of torch's functions down: by a sixth for a rollout.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_DRAWS = ((torch, "rand"), (torch, "randn"), (torch, "randint"))
_FILLS = ((Tensor, "uniform_"), (Tensor, "normal_"), (Tensor, "exponential_"))
_REFUSED = (
    *((torch, name) for name in ("normal", "bernoulli", "multinomial", "poisson")),
    *((Tensor, name) for name in ("bernoulli", "multinomial", "bernoulli_", "random_", "cauchy_")),
    *((Tensor, name) for name in ("log_normal_", "geometric_")),
)
_ALLOWED = "rand, randn, randint, and a tensor's uniform_, normal_ and exponential_"


class Tasks(Protocol):
    """This process's share of the tasks; see `metarl.parallel.Share`."""

    @property
    def num_tasks(self) -> int: ...
    @property
    def size(self) -> int: ...
    def own(self, values: Any, dim: int = 0) -> Any: ...


@dataclass(frozen=True)
class _Share:
    """What is drawn for all, and the axis of the tasks in it."""

    tasks: Tasks
    dim: int

    def own(self, drawn: Tensor) -> Tensor:
        return self.tasks.own(drawn, self.dim)

    def shape_of_all(self, shape: Sequence[int]) -> list[int]:
        size, own = shape[self.dim] if len(shape) > self.dim else 0, self.tasks.size
        if size == 0 or size % own:
            raise ValueError(
                f"noise is drawn with shape {list(shape)}; axis {self.dim} must be a multiple of the {own} tasks "
                "that this process has, or several processes cannot share it"
            )
        return [*shape[: self.dim], size // own * self.tasks.num_tasks, *shape[self.dim + 1 :]]


_RANDINT = torch.randint
_share: ContextVar[_Share | None] = ContextVar("noise", default=None)
_num_contexts = 0  # so far


@contextmanager
def noise_of_all(tasks: Tasks, dim: int) -> Iterator[None]:
    """A context in which what is drawn with a generator is drawn for all tasks, and this process keeps its own.

    dim: the axis of the tasks in what is drawn. Numbers without axes are the same for all processes.

    Raises, where numbers are drawn:
        ValueError: when their axis is no multiple of the tasks, or torch's function cannot be shared.
    """
    global _num_contexts
    _replace_functions()
    _num_contexts += 1
    token = _share.set(_Share(tasks, dim))
    try:
        with _Watch() if _num_contexts <= 2 else nullcontext():
            yield
    finally:
        _share.reset(token)


class _Watch(TorchFunctionMode):
    """Refuses torch's own functions, which somebody has kept under another name since before they were replaced."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _originals and kwargs.get("generator") is not None and _share.get() is not None:
            name = getattr(func, "__name__", str(func))
            raise ValueError(f"noise is drawn by a reference to torch's {name}; must be called as torch.{name}")
        return func(*args, **kwargs)


_originals: set[Any] = set()


@functools.cache
def _replace_functions() -> None:
    for makers, functions in ((_draw, _DRAWS), (_fill, _FILLS), (_refuse, _REFUSED)):
        for owner, name in functions:
            original = getattr(owner, name)
            _originals.add(original)
            setattr(owner, name, _replacement(original, makers(original)))


def _replacement(original: Callable[..., Any], shared: Callable[..., Any]) -> Callable[..., Any]:
    """The function as it was; in a context of `noise_of_all`, and given a generator, `shared` instead."""

    @functools.wraps(original)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        share = None if kwargs.get("generator") is None else _share.get()
        if share is None:
            return original(*args, **kwargs)
        token = _share.set(None)
        try:
            return shared(share, *args, **kwargs)
        finally:
            _share.reset(token)

    return replacement


def _draw(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def draw(share: _Share, *args: Any, **kwargs: Any) -> Tensor:
        before, shape = _split_shape(args, kwargs, bounds=original is _RANDINT)
        if not shape:
            return original(*args, **kwargs)
        others = {name: value for name, value in kwargs.items() if name != "size"}
        return share.own(original(*before, share.shape_of_all(shape), **others))

    return draw


def _fill(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def fill(share: _Share, values: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if values.ndim == 0:
            return original(values, *args, **kwargs)
        drawn = original(values.new_empty(share.shape_of_all(values.shape)), *args, **kwargs)
        return values.copy_(share.own(drawn))

    return fill


def _refuse(original: Callable[..., Any]) -> Callable[..., Any]:
    def refuse(share: _Share, *args: Any, **kwargs: Any) -> Any:
        name = getattr(original, "__name__", str(original))
        raise ValueError(f"noise is drawn by torch's {name}, which several processes cannot share; can be {_ALLOWED}")

    return refuse


def _split_shape(args: tuple[Any, ...], kwargs: dict[str, Any], *, bounds: bool) -> tuple[Any, Any]:
    """The arguments before the shape, and the shape, of torch.rand, randn or randint, whose bounds come first."""
    if "size" in kwargs:
        return args, tuple(kwargs["size"])
    if args and isinstance(args[-1], (tuple, list)):  # a torch.Size too
        return args[:-1], tuple(args[-1])
    return (args, ()) if bounds else ((), args)
