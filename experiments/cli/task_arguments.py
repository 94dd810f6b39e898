"""A task with fields given on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from experiments.experiment.names import suggestion
from metarl.errors import UserError
from metarl.records import Record

R = TypeVar("R", bound=Record)


def with_fields(task: R, words: Sequence[str], family_name: str) -> R:
    """The task (leading axis 1) with the fields that `words` such as "velocity=1.5" or "goal=0.5,0" name.

    One number fills a whole field; otherwise as many are needed as the field has.

    Raises:
        UserError: naming the field, what was given and what is allowed.
    """
    fields = {name: value for name, value in vars(task).items() if isinstance(value, Tensor)}
    chosen = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise UserError(f"--task {word}: a field and its value are wanted, such as {_example(fields)}")
        if name not in fields:
            raise UserError(f"a task of {family_name} has no field {name!r}: {suggestion(name, fields)}")
        chosen[name] = _value(name, text, fields[name])
    return replace(task, **chosen)  # pyright: ignore[reportArgumentType], records are dataclasses


def _value(name: str, text: str, like: Tensor) -> Tensor:
    """Numbers separated by commas, in the shape [1, ...] and type of the field's own value."""
    size = like[0].numel()
    allowed = "one number" if size == 1 else f"one number, or {size} with commas between"
    kind = "" if like.is_floating_point() else "integers: "
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    right_kind = like.is_floating_point() or all(number.is_integer() for number in numbers)
    finite = all(abs(number) < float("inf") for number in numbers)
    if len(numbers) not in (1, size) or not right_kind or not finite:
        raise UserError(f"--task {name}={text}: {name} takes {kind}{allowed}")
    value = torch.tensor(numbers, dtype=torch.float64).to(like.dtype)
    return value.expand(size).reshape(like.shape).clone()


def _example(fields: dict[str, Tensor]) -> str:
    name, value = next(iter(fields.items()))
    return f"{name}={','.join(f'{number:.3g}' for number in value[0].flatten().tolist())}"
