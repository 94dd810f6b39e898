"""The run directory as all processes but the first have it: they read it and write nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from metarl.run.directory import Run


class Follower(Run):
    """A run whose directory another process writes."""

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """No lock: the process that writes holds it."""
        yield

    def save(self, name: str, state: Mapping[str, Any]) -> None: ...

    def log(self, metrics: Mapping[str, float], step: int) -> None: ...

    def log_anew(self, metrics: Mapping[str, float], step: int) -> None: ...

    def rewind(self, step: int) -> None: ...

    def rewrite_config(self, config: Mapping[str, Any]) -> None: ...

    def keep_code(self, code: Mapping[str, bytes]) -> None: ...

    def log_to(self, names: Sequence[str]) -> None: ...

    def save_traceback(self, error: BaseException) -> Path:
        """The path of the traceback, which the process that writes saves of its own errors."""
        return self.path / "traceback.txt"
