"""Data sets on disk: where they lie, what is wrong with them, their published splits, and a cache of decoded images."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metarl.errors import UserError
from metarl.fewshot.images.pixels import Pixels

FORMAT = 1  # version of the cache's file format; a new number invalidates old files
MANY = 20000  # number of images from which a message is printed
_NAMED = 10  # number of faults that a message lists; it counts the others


class DataError(UserError):
    """A data set is missing or damaged; the message names it, and the files to put in place."""


class FaultyDataError(DataError):
    """A data set has several faults; the message lists them together."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        number = f"{len(faults)} faults in the data: " if len(faults) > 1 else ""
        super().__init__(f"{number}{'; '.join(faults[:_NAMED])}{more}")


def home() -> Path:
    """MetaRL's folder for caches and, by default, data: ~/.cache/metarl."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "metarl"


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


def decoded(
    name: str, settings: Mapping[str, object], shape: tuple[int, int, int, int], decode: Callable[[], Iterable[Pixels]]
) -> Tensor:
    """Images [M, C, H, W] uint8 of a data set in the given settings; `decode` makes them if they are not cached.

    The tensor is a private memory map of the file, so large sets take memory only as they are read. If the file cannot
    be written, the images are held in memory. If `decode` raises, the exception propagates and no file is kept.
    """
    text = json.dumps({"format": FORMAT, "shape": shape, **settings}, sort_keys=True)
    path = home() / "decoded" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.npy"
    kept = _mapped(path, shape)
    if kept is None and shape[0] > MANY:
        print(f"metarl: decoding {shape[0]} images of {name}, once; kept in {path.parent}", file=sys.stderr)
    if kept is None and _written(path, shape, decode):
        kept = _mapped(path, shape)
    if kept is not None:
        return kept
    images = np.empty(shape, dtype=np.uint8)
    for index, image in enumerate(decode()):
        images[index] = image
    return torch.from_numpy(images)


def _mapped(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    """The images of a file, or None if it is missing or damaged."""
    try:
        images = np.load(path, mmap_mode="c")  # writes to the tensor do not change the file
    except (OSError, ValueError, EOFError):
        return None
    return torch.from_numpy(images) if images.shape == shape and images.dtype == np.uint8 else None


def _written(path: Path, shape: tuple[int, ...], decode: Callable[[], Iterable[Pixels]]) -> bool:
    """Write the images to a file, which appears only when complete; returns whether that was possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-")
    except OSError:  # a read-only home
        return False
    try:
        with open(descriptor, "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for image in decode():
                file.write(image.tobytes())
        os.replace(scratch, path)
    except OSError:  # a full disk
        return False
    finally:
        with contextlib.suppress(OSError):  # already renamed
            os.unlink(scratch)
    return True
