"""CIFAR-100 in its binary version: 60,000 colour images of 32 x 32 pixels, 100 classes in 20 superclasses.

Krizhevsky. Learning multiple layers of features from tiny images (2009).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from metarl.fewshot.images.class_set import ImageClasses
from metarl.fewshot.images.data import DataError, decoded
from metarl.fewshot.images.folders import Form, fingerprint
from metarl.fewshot.images.pixels import Pixels, square_pixels

FILES = ("train.bin", "test.bin")  # both: few-shot learning splits by class
_RECORD = 2 + 3 * 32 * 32  # bytes: superclass, class, and the planes of red, green and blue


def binary_folder(folder: Path) -> Path | None:
    """Where the binary version lies in or below a folder; None: not there."""
    for place in (folder, folder / "cifar-100-binary"):
        if all((place / name).is_file() for name in FILES):
            return place
    return None


def read_binary(folder: Path, form: Form) -> ImageClasses:
    """All classes and images of both files.

    Raises:
        DataError: when a file is missing or is not of the format.
    """
    records = np.concatenate([_records(folder / name) for name in FILES])
    records = records[np.argsort(records[:, 1], kind="stable")]
    fine, coarse = (_lines(folder / f"{kind}_label_names.txt") for kind in ("fine", "coarse"))
    labels, first, counts = np.unique(records[:, 1], return_index=True, return_counts=True)
    if int(labels.max()) >= len(fine) or int(records[:, 0].max()) >= len(coarse):
        raise DataError(f"{folder} has labels up to {labels.max()} and names for {len(fine)}; use the official files")
    images = decoded(
        "cifar100",
        {"form": vars(form), "files": fingerprint(folder / name for name in FILES)},
        (len(records), form.channels, form.size, form.size),
        lambda: _images(records[:, 2:].reshape(-1, 3, 32, 32), form),
    )
    return ImageClasses(
        images,
        torch.from_numpy(counts),
        tuple(fine[label] for label in labels),
        tuple(coarse[label] for label in records[first, 0]),
    )


def _records(file: Path) -> NDArray[np.uint8]:
    size = file.stat().st_size
    if not size or size % _RECORD:
        raise DataError(f"{file} has {size} bytes; a file of CIFAR-100's binary version has a multiple of {_RECORD}")
    return np.fromfile(file, dtype=np.uint8).reshape(-1, _RECORD)


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        raise DataError(f"{file} is not there, or not a file")
    try:
        return file.read_text(encoding="utf-8").split()
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def _images(planes: NDArray[np.uint8], form: Form) -> Iterator[Pixels]:
    for image in planes:
        picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        yield square_pixels(picture, **vars(form))
