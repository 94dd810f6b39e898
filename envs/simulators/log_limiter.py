"""A limit on repeated log messages."""

from __future__ import annotations


class LogLimiter:
    """Allows the first ten messages, then one each time their number has doubled."""

    def __init__(self, first: int = 10) -> None:
        self.count = 0  # number of messages so far
        self._next = 1
        self._first = first

    def allows(self) -> bool:
        """Count one more message; returns whether to log it."""
        self.count += 1
        if self.count < self._next:
            return False
        self._next = self.count + 1 if self.count < self._first else 2 * self.count
        return True
