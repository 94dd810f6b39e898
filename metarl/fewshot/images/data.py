"""Locating data sets, errors for missing ones, and the published splits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from metarl.errors import UserError
from metarl.fewshot.images.cache import home


class DataError(UserError):
    """A data set is missing or damaged; the message names it, and the files to put in place."""


_NAMED = 10  # number of faults that a message lists; it counts the others


class FaultyDataError(DataError):
    """A data set has several faults; the message lists them together."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        number = f"{len(faults)} faults in the data: " if len(faults) > 1 else ""
        super().__init__(f"{number}{'; '.join(faults[:_NAMED])}{more}")


def data_folder(data_dir: str | None, *, folders: Sequence[str], expected: Sequence[str], what: str) -> Path:
    """The folder that holds a data set: `data_dir`, else $METARL_DATA, else ~/.cache/metarl, or one of `folders` in it.

    It is the first that contains one of the files or folders `expected`. If these have no fixed names, it is the first
    of `folders` that exists, or a `data_dir` given for this data set.

    Raises:
        DataError: when there is none; what: a description of the expected data, for the message.
    """
    root = Path(data_dir or os.environ.get("METARL_DATA") or home()).expanduser()
    for folder in (*(root / name for name in folders), root):
        if expected and any((folder / name).exists() for name in expected):
            return folder
        if not expected and folder.is_dir() and (folder != root or data_dir):
            return folder
    how = "" if data_dir else ", or name another folder in data_dir or METARL_DATA"
    raise DataError(f"{what} not found: put {' or '.join(expected) or 'them'} into {root / folders[0]}{how}")


def split_lines(file: str) -> list[str]:
    """The lines of a published split in `splits/`."""
    return (resources.files("metarl.fewshot.images") / "splits" / file).read_text(encoding="utf-8").splitlines()
