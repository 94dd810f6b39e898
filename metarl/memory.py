"""Whether what is asked for can fit this machine's memory at all, asked before it is tried."""

from __future__ import annotations

import math
import os

_BYTES = 4  # of a number in single precision


def check_memory(what: str, numbers: float) -> None:
    """Refuse what holds more numbers in single precision than this machine can.

    Raises:
        ValueError: saying what needs how much; and how much there is.
    """
    needed, present = numbers * _BYTES / 1e9, machine_gigabytes()
    if needed > present:
        raise ValueError(f"{what} would need {needed:,.0f} GB of memory; this machine has {present:,.0f}")


def machine_gigabytes() -> float:
    """The machine's memory; infinite where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):
        return math.inf
