"""Atomic file writes: a reader, also after a kill at any moment, finds the old content or the new, never a part.

What is written first is a uniquely named scratch file next to the target. It is made exclusively, and the
target is replaced, never opened; a symbolic link that somebody put in the place of either is not followed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_SCRATCH = ".partial"  # suffix of scratch files, before the target's own suffix
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)  # not on Windows


@contextlib.contextmanager
def scratch_file(path: Path) -> Iterator[Path]:
    """An empty scratch file for `path`, which replaces it when the context ends and is removed on failure.

    Raises:
        OSError: when the disk refuses it.
    """
    scratch = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{_SCRATCH}{path.suffix}")
    os.close(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o666))
    try:
        yield scratch
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file atomically, and wait until it is on disk.

    content: the bytes, or a function that writes them, for content too large to hold in memory twice.

    Raises:
        OSError: when writing fails; the old content is kept.
    """
    with scratch_file(path) as scratch, os.fdopen(os.open(scratch, os.O_WRONLY | _NO_FOLLOW), "wb") as file:
        file.write(content) if isinstance(content, bytes) else content(file)
        file.flush()
        os.fsync(file.fileno())


def read_file(path: Path) -> bytes:
    """The content of a regular file; fails for a pipe, which would block.

    Raises:
        OSError: when it does not exist, or cannot be read.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError("not a regular file")
    return path.read_bytes()


def is_scratch(path: Path) -> bool:
    """Whether a file is a leftover scratch file of a killed process."""
    return path.name.startswith(".") and path.stem.endswith(_SCRATCH)


def open_lock(path: Path) -> BinaryIO:
    """A file to lock, created if missing; its content is not changed.

    Raises:
        OSError: when it cannot be opened for writing, or is a symbolic link.
    """
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | _NO_FOLLOW, 0o666), "r+b", buffering=0)


def open_to_append(path: Path) -> int:
    """A descriptor of a file to append to, created if missing.

    Raises:
        OSError: when it cannot be opened for writing, or is a symbolic link.
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _NO_FOLLOW, 0o666)


def reason(error: Exception) -> str:
    """The reason of an error, in one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0]
