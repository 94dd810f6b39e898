"""Decoded images on the disk: decoded once, then mapped into memory."""

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

FORMAT = 1  # of what is kept; a new number makes the old files worthless
MANY = 20000  # images, which take long enough to say so


def home() -> Path:
    """Where MetaRL keeps what it can make again, and looks for data unless told otherwise: ~/.cache/metarl."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "metarl"


def decoded(
    name: str, settings: Mapping[str, object], shape: tuple[int, int, int, int], decode: Callable[[], Iterable[Pixels]]
) -> Tensor:
    """Images [M, C, H, W] uint8 of a data set in certain settings; `decode` makes them where they are not kept yet.

    The tensor is a private map of the file, so that large sets take memory as they are looked at. Where the file
    cannot be written, the images are held in memory. What `decode` raises comes through, and then nothing is kept.
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
    """The images of a file, or None where there is no such file or a damaged one."""
    try:
        images = np.load(path, mmap_mode="c")  # writing to the tensor never reaches the file
    except (OSError, ValueError, EOFError):
        return None
    return torch.from_numpy(images) if images.shape == shape and images.dtype == np.uint8 else None


def _written(path: Path, shape: tuple[int, ...], decode: Callable[[], Iterable[Pixels]]) -> bool:
    """Whether the images could be written; the file appears under its name only when it is whole."""
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
        with contextlib.suppress(OSError):  # gone, once it has its name
            os.unlink(scratch)
    return True
