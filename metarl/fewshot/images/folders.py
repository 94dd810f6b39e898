"""Images in folders by class: listing and reading them."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from metarl.fewshot.images.class_set import ImageClasses
from metarl.fewshot.images.data import DataError, FaultyDataError, decoded
from metarl.fewshot.images.pixels import Background, Fit, Pixels, Resize, is_deep, square_pixels, white_level

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".j2k", ".avif"),
)
_NOTES = (".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".html", ".db", ".ini", ".py", ".pdf")
_SYSTEM_FOLDERS = ("__MACOSX",)
_AT_ONCE = 512  # number of images decoded in parallel


@dataclass(frozen=True)
class ImageClass:
    """The files of one class, in order."""

    name: str
    group: str  # group of the class, e.g. its superclass; "" for none
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Form:
    """The common format of all images."""

    channels: int
    size: int  # height and width, in pixels
    resize: Resize
    fit: Fit
    background: Background = "white"
    white: float | None = None


@dataclass(frozen=True)
class Listing:
    """The contents below a folder."""

    classes: tuple[ImageClass, ...]
    faults: tuple[str, ...]  # phrases, one per file or folder that cannot be read or would be left out


@dataclass
class _Place:
    """The files directly in a folder."""

    path: Path
    images: list[Path] = field(default_factory=list)  # in order
    others: list[Path] = field(default_factory=list)  # files that are neither images nor notes about them
    faults: list[str] = field(default_factory=list)
    has_folders: bool = False


def classes_below(folder: Path) -> Listing:
    """Every folder below this one that holds images, in order; its name is its path, its group the path around it.

    Faults are files that are not images, folders without images, images in the folder itself, broken or circular links,
    and anything else that is neither a file nor a folder. Notes (text files) are skipped.
    """
    classes, faults, others = [], [], []
    for place in _places(folder):
        faults += place.faults
        others += place.others
        path = place.path.relative_to(folder)
        if place.images and path.name:
            group = path.parent.as_posix().removeprefix(".")
            classes.append(ImageClass(path.as_posix(), group, tuple(place.images)))
        elif place.images:
            faults.append(f"{_such_as(place.images)} {_is_are(place.images)} in no folder of a class")
        elif path.name and not place.has_folders:
            faults.append(f"{place.path} has no images")
    if others:
        faults.append(f"{_such_as(others)} {_is_are(others)} of a kind that is not read (see docs/few_shot.md)")
    return Listing(tuple(classes), tuple(faults))


def named_classes(
    folder: Path,
    wanted: Sequence[tuple[str, str]],
    images_per_class: int | None = None,
    *,
    by_file: bool = False,
) -> list[ImageClass]:
    """Classes by (group, name): the folders with these names, on any level.

    by_file: also files whose names start with these names, if all names have the same length.

    Raises:
        DataError: when a class is missing, is in two places, or has the wrong number of images.
    """
    groups = {name: group for group, name in wanted}
    length = len(wanted[0][1])
    found: dict[str, list[tuple[Path, tuple[Path, ...]]]] = {name: [] for name in groups}
    for place in _places(folder):
        name, files = place.path.name, tuple(place.images)
        if name in found and files:
            found[name].append((place.path, files))
        if name in found or not by_file:
            continue
        by_start: dict[str, list[Path]] = {}
        for file in files:
            if file.name[:length] in found:
                by_start.setdefault(file.name[:length], []).append(file)
        for start, own in by_start.items():
            found[start].append((place.path, tuple(own)))
    missing = [name for name, places in found.items() if not places]
    if missing:
        raise DataError(f"{folder} lacks {len(missing)} of {len(found)} classes, such as {missing[0]}")
    for name, places in found.items():
        if len(places) > 1:
            raise DataError(f"class {name} is in {places[0][0]} and in {places[1][0]}; one of them must go")
        check_number(name, len(places[0][1]), places[0][0], images_per_class)
    return [ImageClass(name, groups[name], places[0][1]) for name, places in found.items()]


def check_number(name: str, found: int, place: Path, images_per_class: int | None) -> None:
    """Check the number of a class's images; images_per_class: None for any number.

    Raises:
        DataError: when it is wrong.
    """
    if not found or images_per_class not in (None, found):
        raise DataError(f"class {name} has {found} images in {place}, not {images_per_class or 'one or more'}")


def _places(folder: Path) -> Iterator[_Place]:
    """A folder and all folders below it, following links, in order; hidden ones are skipped."""
    unread: list[OSError] = []
    for name, folders, files in os.walk(folder, followlinks=True, onerror=unread.append):
        place = _Place(Path(name))
        folders[:] = sorted(each for each in folders if not is_passed_over(each))
        back = [each for each in folders if _leads_back(place.path / each, folder)]
        place.faults += [f"{place.path / each} is a link to a folder that it lies in" for each in back]
        folders[:] = [each for each in folders if each not in back]
        place.has_folders = bool(folders or back)
        for file in (place.path / each for each in sorted(files) if not is_passed_over(each)):
            _sort_in(file, place)
        yield place
    if unread:
        raise DataError(f"{unread[0].filename} cannot be read: {unread[0].strerror}")


def is_passed_over(name: str) -> bool:
    """Whether a file or folder is hidden, or belongs to an operating system."""
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def _leads_back(path: Path, root: Path) -> bool:
    """Whether a folder is a link to one of its own parents, up to the root or beyond it."""
    if not path.is_symlink():
        return False
    target, inside = path.resolve(), path.relative_to(root).parents
    return any((root / parent).resolve().is_relative_to(target) for parent in inside)


def _sort_in(file: Path, place: _Place) -> None:
    suffix = file.suffix.lower()
    if file.is_file():
        if suffix in SUFFIXES:
            place.images.append(file)
        elif suffix not in _NOTES:
            place.others.append(file)
    elif file.is_symlink():
        place.faults.append(f"{file} is a link to {os.readlink(file)}, which is not there")
    else:
        place.faults.append(f"{file} is neither a file nor a folder")


def _such_as(files: Sequence[Path]) -> str:
    return f"{files[0]}" if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"


def _is_are(files: Sequence[Path]) -> str:
    return "is" if len(files) == 1 else "are"


def read_classes(name: str, classes: Sequence[ImageClass], form: Form) -> ImageClasses:
    """All images of these classes; decoded again only when the name, size or time of a file has changed.

    In images of more than 8 bits, the white level is common to all images with the same number format.

    Raises:
        DataError: when files cannot be read as images; names them.
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
    """A hash that changes when a file is changed or replaced.

    Raises:
        DataError: when a file is missing.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            state = file.stat()
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}") from error
        digest.update(f"{file.absolute()} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Look:
    """The properties of a file, known before all of its pixels are decoded."""

    fault: str | None = None
    kind: str = "bytes"  # how numbers are stored: "bytes", or deeper "integers" or "floats"
    white: float = 255.0  # value of white


def _read(files: Sequence[Path], form: Form) -> Iterator[Pixels]:
    """Every image; zeros for those that cannot be read, which are reported together at the end.

    Raises:
        FaultyDataError: lists them.
    """
    looks = _look_at(files, form)
    white = {look.kind: max(each.white for each in looks if each.kind == look.kind) for look in looks}
    faults = [f"{file} {look.fault}" for file, look in zip(files, looks, strict=True) if look.fault]

    def read(file: Path, look: _Look) -> Pixels:
        if look.fault:
            return np.zeros((form.channels, form.size, form.size), np.uint8)
        try:
            with Image.open(file) as picture:
                return square_pixels(picture, **vars(replace(form, white=white[look.kind])))
        except Exception as error:  # whatever Pillow raises for files that are no whole images
            faults.append(f"{file} cannot be read as an image: {error}")
            return np.zeros((form.channels, form.size, form.size), np.uint8)

    with ThreadPoolExecutor() as threads:
        for start in range(0, len(files), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            yield from threads.map(read, files[some], looks[some])
    if faults:
        raise FaultyDataError(sorted(faults))


def _look_at(files: Sequence[Path], form: Form) -> list[_Look]:
    def look(file: Path) -> _Look:
        try:
            with Image.open(file) as picture:
                return _look_of(picture, form)
        except Exception as error:  # whatever Pillow raises for files that are no images, or suspiciously large
            return _Look(f"cannot be read as an image: {error}")

    with warnings.catch_warnings(), ThreadPoolExecutor() as threads:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return list(threads.map(look, files))


def _look_of(picture: Image.Image, form: Form) -> _Look:
    frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)  # cameras add previews to an MPO
    if frames > 1:
        return _Look(f"has {frames} frames; must have one")
    if not is_deep(picture):
        return _Look()
    kind = "floats" if picture.mode == "F" else "integers"
    return _Look(kind=kind, white=white_level(picture) if form.white is None else form.white)
