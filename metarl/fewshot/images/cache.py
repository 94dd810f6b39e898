"""A cache of decoded images on disk, which are memory-mapped."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metarl.fewshot.images.pixels import Pixels

FORMAT = 1  # version of the file format; a new number invalidates old files
MANY = 20000  # number of images from which a message is printed


def home() -> Path:
    """MetaRL's folder for caches and, by default, data: ~/.cache/metarl."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "metarl"


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
