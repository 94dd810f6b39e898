"""Checks of settings, with one form of message for every invalid value.

Each takes the settings (any object with fields) and the names of the fields to check, and skips those that are None.
The message is "<field> is <value>; must be <what is allowed>".
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Collection, Iterable
from typing import Any


def at_least(settings: Any, minimum: float, *names: str) -> None:
    """Check that numbers, or all entries of tuples of numbers, are at least a minimum.

    Raises:
        ValueError: names the first field that is not.
    """
    _check(settings, names, lambda value: value >= minimum, f"must be at least {minimum:g}")


def positive(settings: Any, *names: str) -> None:
    """Check that numbers are positive and finite.

    Raises:
        ValueError: names the first field that is not.
    """
    _check(settings, names, lambda value: 0 < value < math.inf, "must be positive and finite")


def not_negative(settings: Any, *names: str) -> None:
    """Check that numbers are zero or positive, and finite.

    Raises:
        ValueError: names the first field that is not.
    """
    _check(settings, names, lambda value: 0 <= value < math.inf, "must be zero or positive, and finite")


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


def _check(settings: Any, names: Iterable[str], is_allowed: Any, must: str) -> None:
    for name in names:
        value = getattr(settings, name)
        values = value if isinstance(value, (tuple, list)) else (value,)
        if value is not None and not all(is_allowed(each) for each in values):
            shown = reprlib.repr(value) if isinstance(value, int) else value  # short, however many digits it has
            raise ValueError(f"{name} is {shown}; {must}")
