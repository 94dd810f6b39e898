"""Trust in a run's code: records of code that this user has run are signed with a key that only this user has.

A run's directory may come from anywhere, and may name any file. Its code is run without asking only if its record has
this user's signature, which means that the user has run exactly this code before.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import tempfile
from dataclasses import replace
from pathlib import Path

from metarl.run.kept_files import CodeRecord

_KEY_SIZE = 32  # bytes


def key_file() -> Path:
    """The file of the user's key: ~/.config/metarl/key."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "metarl" / "key"


def signed(record: CodeRecord) -> CodeRecord:
    """The record with this user's signature; without one where the user has no key and none can be written."""
    key = _key() or _new_key()
    return record if key is None else replace(record, signature=_signature(record, key))


def is_signed(record: CodeRecord) -> bool:
    """Whether this user has signed the record, and it is as it was then."""
    key = _key()
    return key is not None and hmac.compare_digest(record.signature.encode(), _signature(record, key).encode())


def _signature(record: CodeRecord, key: bytes) -> str:
    return hmac.digest(key, record.signed_part(), "sha256").hex()


def _key() -> bytes | None:
    try:
        key = key_file().read_bytes()
    except (OSError, RuntimeError):  # a user without a home directory, for one
        return None
    return key if len(key) == _KEY_SIZE else None


def _new_key() -> bytes | None:
    """A key that is whole once it has its name; the one of another process where that was first."""
    try:
        path = key_file()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, scratch = tempfile.mkstemp(dir=path.parent)  # which only the user can read
    except (OSError, RuntimeError):
        return None
    try:
        with open(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_SIZE))
        with contextlib.suppress(FileExistsError):
            os.link(scratch, path)
    except OSError:
        return None
    finally:
        os.unlink(scratch)
    return _key()
