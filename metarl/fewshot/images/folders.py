"""Images in folders by class: what there is, and reading it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from metarl.fewshot.images.cache import decoded
from metarl.fewshot.images.class_set import ImageClasses
from metarl.fewshot.images.data import DataError
from metarl.fewshot.images.pixels import Fit, Pixels, Resize, square_pixels

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
_AT_ONCE = 512  # images that are decoded side by side


@dataclass(frozen=True)
class ImageClass:
    """The files of one class, in order."""

    name: str
    group: str  # such as its superclass; "" where there is none
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Form:
    """What every image is brought to."""

    channels: int
    size: int  # pixels a side
    resize: Resize
    fit: Fit


def classes_below(folder: Path) -> list[ImageClass]:
    """Every folder below this one that holds images, in order; its name is its path, its group the path around it."""
    found = []
    for place, files in _images_below(folder):
        path = place.relative_to(folder)
        if path.name:
            found.append(ImageClass(path.as_posix(), path.parent.as_posix().removeprefix("."), files))
    return found


def named_classes(
    folder: Path,
    wanted: Sequence[tuple[str, str]],
    images_per_class: int | None = None,
    *,
    by_file: bool = False,
) -> list[ImageClass]:
    """Classes by (group, name): the folders of those names on whatever level.

    by_file: also files whose names begin so, where all names are of one length.

    Raises:
        DataError: when a class is missing, is in two places, or has not as many images as it must have.
    """
    groups = {name: group for group, name in wanted}
    length = len(wanted[0][1])
    found: dict[str, list[tuple[Path, tuple[Path, ...]]]] = {name: [] for name in groups}
    for place, files in _images_below(folder):
        if place.name in found:
            found[place.name].append((place, files))
        if place.name in found or not by_file:
            continue
        by_start: dict[str, list[Path]] = {}
        for file in files:
            if file.name[:length] in found:
                by_start.setdefault(file.name[:length], []).append(file)
        for name, own in by_start.items():
            found[name].append((place, tuple(own)))
    missing = [name for name, places in found.items() if not places]
    if missing:
        raise DataError(f"{folder} lacks {len(missing)} of {len(found)} classes, such as {missing[0]}")
    for name, places in found.items():
        if len(places) > 1:
            raise DataError(f"class {name} is in {places[0][0]} and in {places[1][0]}; one of them must go")
        check_number(name, len(places[0][1]), places[0][0], images_per_class)
    return [ImageClass(name, groups[name], places[0][1]) for name, places in found.items()]


def check_number(name: str, found: int, place: Path, images_per_class: int | None) -> None:
    """Whether a class has the images that it must have; None: any number of them.

    Raises:
        DataError: when it has not.
    """
    if not found or images_per_class not in (None, found):
        raise DataError(f"class {name} has {found} images in {place}, not {images_per_class or 'one or more'}")


def _images_below(folder: Path) -> Iterator[tuple[Path, tuple[Path, ...]]]:
    """Folders and the images right in them, both in order."""
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        images = tuple(Path(place, name) for name in sorted(files) if _is_image(name))
        if images:
            yield Path(place), images


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def read_classes(name: str, classes: Sequence[ImageClass], form: Form) -> ImageClasses:
    """All images of these classes; decoded again only when a file has another name, size or time than before.

    Raises:
        DataError: when a file cannot be read as an image.
    """
    files = [file for each in classes for file in each.files]
    images = decoded(
        name,
        {"form": vars(form), "files": fingerprint(files)},
        (len(files), form.channels, form.size, form.size),
        lambda: _read(files, form),
    )
    return ImageClasses(
        images,
        torch.tensor([len(each.files) for each in classes]),
        tuple(each.name for each in classes),
        tuple(each.group for each in classes),
    )


def fingerprint(files: Iterable[Path]) -> str:
    """What changes when a file is changed or another comes in its place."""
    digest = hashlib.sha256()
    for file in files:
        state = file.stat()
        digest.update(f"{file.absolute()} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _read(files: Sequence[Path], form: Form) -> Iterator[Pixels]:
    def read(file: Path) -> Pixels:
        try:
            with Image.open(file) as picture:
                return square_pixels(picture, **vars(form))
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for files that are no whole images
            raise DataError(f"{file} cannot be read as an image: {error}") from error

    with ThreadPoolExecutor() as threads:
        for start in range(0, len(files), _AT_ONCE):
            yield from threads.map(read, files[start : start + _AT_ONCE])
