"""Which of many like messages are worth a line in the log."""

from __future__ import annotations


class LogLimiter:
    """Allows the first ten, and from then on one each time their number has doubled."""

    def __init__(self, first: int = 10) -> None:
        self.count = 0  # of all that asked
        self._next = 1
        self._first = first

    def allows(self) -> bool:
        """Count one more; whether it is to be written."""
        self.count += 1
        if self.count < self._next:
            return False
        self._next = self.count + 1 if self.count < self._first else 2 * self.count
        return True
