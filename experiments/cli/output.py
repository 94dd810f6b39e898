"""Output that cannot interrupt the work: text that can no longer be written is dropped."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class Tolerant:
    """A text stream that ignores failures: of a pipe, a file or a terminal, or of unknown characters."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: Exception | None = None  # the first one

    def write(self, text: str) -> int:
        self._try(self._write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            self._stream.write(text.encode(encoding, "replace").decode(encoding))

    def _try(self, call: Any, *arguments: str) -> None:
        try:
            call(*arguments)
        except (OSError, ValueError, RuntimeError) as error:  # a disk or a reader; closed; in a signal handler
            self.failure = self.failure or error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def tolerant_output() -> Iterator[None]:
    """Where what cannot be printed to the standard output or error is dropped.

    Raises:
        OSError: at the end, when the standard output has failed.
    """
    before = sys.stdout, sys.stderr
    output, errors = (stream and Tolerant(stream) for stream in before)  # a stream may be None, as under pythonw
    sys.stdout, sys.stderr = output, errors  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
    if output is not None:
        output.flush()
        if isinstance(output.failure, OSError):
            raise output.failure
