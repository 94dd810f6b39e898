"""Output that cannot end the work: what nobody can read any more is dropped."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

_FAILURES = (OSError, ValueError, RuntimeError)  # a full disk or a reader that has left; closed; in a signal handler


class Tolerant:
    """A text stream that writes what it can: a pipe, a file or a terminal may fail, and characters may be unknown."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(*_FAILURES):
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding
                self._stream.write(text.encode(encoding, "replace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        with suppress(*_FAILURES):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def tolerant_output() -> Iterator[None]:
    """Where what is printed to the standard output or error is dropped if it cannot be written."""
    before = sys.stdout, sys.stderr
    output: Any = [stream and Tolerant(stream) for stream in before]  # a stream may be None, as under pythonw
    sys.stdout, sys.stderr = output
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
