"""Checks of settings, with one form of message for every invalid value.

Each takes the settings (any object with fields) and the names of the fields to check, and skips those that are None.
The message is "<field> is <value>; must be <what is allowed>".
"""

from __future__ import annotations

import math
import typing
from collections.abc import Collection, Iterable
from typing import Any

LARGEST_COUNT = 2**31 - 1  # of anything
LARGEST_WIDTH = 2**14  # of a layer: fresh orthogonal weights take hours beyond it
MOST_ROUNDS = 10**6  # of a loop within one iteration, which must come to an end
MOST_BLOCKS = 1000  # of a net, one after another
_SMALLEST_FLOAT, _LARGEST_FLOAT = 1.2e-38, 3.4e38  # of single precision, in which networks compute


def at_least(settings: Any, minimum: float, *names: str, at_most: float = LARGEST_COUNT) -> None:
    """Check that numbers, or all entries of tuples of numbers, are at least a minimum, and no more than can be counted.

    Raises:
        ValueError: names the first field that is not.
    """
    _check(settings, names, lambda value: value >= minimum, f"must be at least {minimum:g}")
    _check(settings, names, lambda value: value <= at_most, f"must be at most {at_most:,}")


def widths(settings: Any, *names: str) -> None:
    """Check that numbers, or all entries of tuples of numbers, can be sizes of layers.

    Raises:
        ValueError: naming the first field that cannot.
    """
    at_least(settings, 1, *names, at_most=LARGEST_WIDTH)


def rounds(settings: Any, *names: str, minimum: int = 1) -> None:
    """Check that numbers can be how often a loop within one iteration is run.

    Raises:
        ValueError: naming the first field that cannot.
    """
    at_least(settings, minimum, *names, at_most=MOST_ROUNDS)


def not_empty(settings: Any, *names: str) -> None:
    """Check that tuples have entries.

    Raises:
        ValueError: naming the first field that has none.
    """
    for name in names:
        if not getattr(settings, name):
            raise ValueError(f"{name} is {getattr(settings, name)}; must have one or more entries")


def positive(settings: Any, *names: str) -> None:
    """Check that numbers are positive and finite, as networks compute.

    Raises:
        ValueError: names the first field that is not.
    """
    _check(settings, names, lambda value: value > 0, "must be positive and finite")
    limits = f"must be between {_SMALLEST_FLOAT:g} and {_LARGEST_FLOAT:g}"
    _check(settings, names, lambda value: value < math.inf, "must be positive and finite")
    _check(settings, names, lambda value: _SMALLEST_FLOAT <= value <= _LARGEST_FLOAT, limits)


def not_negative(settings: Any, *names: str) -> None:
    """Check that numbers are zero or positive, and finite, as networks compute.

    Raises:
        ValueError: names the first field that is not.
    """
    _check(settings, names, lambda value: 0 <= value < math.inf, "must be zero or positive, and finite")
    _check(settings, names, lambda value: value <= _LARGEST_FLOAT, f"must be at most {_LARGEST_FLOAT:g}")


def in_range(settings: Any, low: float, high: float, *names: str, open_ends: bool = False) -> None:
    """Check that numbers lie in [low, high], or in (low, high) with open ends.

    Raises:
        ValueError: names the first field that does not.
    """
    if open_ends:
        _check(settings, names, lambda value: low < value < high, f"must be between {low:g} and {high:g} (exclusive)")
    else:
        _check(settings, names, lambda value: low <= value <= high, f"must be in [{low:g}, {high:g}]")


def one_of(settings: Any, name: str, allowed: Collection[Any]) -> None:
    """Check that a field has one of the allowed values.

    Raises:
        ValueError: when it has any other value.
    """
    value = getattr(settings, name)
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; must be one of {', '.join(map(str, allowed))}")


def literals(settings: Any) -> None:
    """Check that every field of a dataclass that is annotated with a few allowed values has one of them.

    Raises:
        ValueError: naming the first field that has another.
    """
    for name, hint in typing.get_type_hints(type(settings)).items():
        if typing.get_origin(hint) is typing.Literal and hasattr(settings, name):
            one_of(settings, name, typing.get_args(hint))


def _check(settings: Any, names: Iterable[str], is_allowed: Any, must: str) -> None:
    for name in names:
        value = getattr(settings, name)
        values = value if isinstance(value, (tuple, list)) else (value,)
        if value is not None and not all(is_allowed(each) for each in values):
            raise ValueError(f"{name} is {_shown(value)}; {must}")


def _shown(value: Any) -> str:
    """A value as text; a whole number with very many digits by how many they are."""
    if isinstance(value, int) and abs(value) > 10**30:
        return f"{'-' if value < 0 else ''}10^{int(abs(value).bit_length() * math.log10(2))} or so"
    return str(value)
