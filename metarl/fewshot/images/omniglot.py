"""Omniglot: 1623 handwritten characters of 50 alphabets, by 20 people each.

Lake, Salakhutdinov, Tenenbaum. Human-level concept learning through probabilistic program induction (2015).
Vinyals et al. Matching networks for one shot learning (2016), for the usual split and its rotations.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from PIL import Image

from metarl.fewshot.images.class_set import ClassPool, ImageClasses, pool_of
from metarl.fewshot.images.data import DataError, data_folder, decoded, split_lines
from metarl.fewshot.images.family import ImageFamily
from metarl.fewshot.images.pixels import Pixels, Resize, square_pixels
from metarl.protocols import Split

PARTS = {"images_background": 19280, "images_evaluation": 13180}  # number of images in each
DIGEST = "180416185c6d898367a215151c9b8fec6cf1aa29d7975a00fcab50a788adfb5a"  # hash of all names and files, in order
_SIZE = (105, 105)  # width and height of an image, in pixels
_MAX_BYTES = 10_000  # size limit of an image file; they have a few hundred bytes
_ENCRYPTED = 0x1  # flag of an encrypted archive entry
_FILE = re.compile(r"images_(?:background|evaluation)/[^/]+/character\d+/\d+_\d+\.png")
_SMALLEST = (  # smallest background alphabets, used by Meta-Dataset for validation
    "Alphabet_of_the_Magi",
    "Blackfoot_(Canadian_Aboriginal_Syllabics)",
    "Inuktitut_(Canadian_Aboriginal_Syllabics)",
    "Ojibwe_(Canadian_Aboriginal_Syllabics)",
    "Tagalog",
)


@dataclass(frozen=True)
class Omniglot(ImageFamily):
    """Handwritten characters: each way is a character, or a character in one of four orientations.

    Papers differ in the settings from `class_split` on, mostly without stating them:

    - class_split: "vinyals", 1028 / 172 / 423 characters for train / val / test (prototypical networks, SNAIL);
      "lake", the alphabets of the two archives, 964 / 0 / 659; "meta_dataset", like "lake" with the five smallest
      alphabets of the first archive for val, 883 / 81 / 659; "random", by `random_sizes` and `split_seed` (MAML,
      MAML++).
    - rotations: a character's four orientations are four "classes" (Vinyals), or each class of an episode is rotated at
      random ("augment": MAML), or "none". test_rotations, for val, test and ood: the "same", or all classes of an
      episode are rotated together ("episode": relation networks), or "none" (Reptile, MAML++).
    - resize: applied to grey values, except "nearest". Code that resizes the original files, with one bit per pixel,
    gets
      "nearest" with any filter, because Pillow has no other for them.
    - ink: "bright" is 1 on 0; "dark" is 0 on 1 (Reptile, MAML++).

    Out of distribution: all ways are from one test alphabet without training classes, in one orientation.
    With the sampler "meta_dataset", all ways of an episode are from one alphabet in every split.
    """

    queries: int = 5  # number of query images per class in training
    class_split: Literal["vinyals", "lake", "meta_dataset", "random"] = "vinyals"  # split of the characters
    random_sizes: tuple[int, int, int] = (1100, 100, 423)  # classes of train, val and test in the random split
    split_seed: int = 0  # seed of the random split
    rotations: Literal["classes", "augment", "none"] = "classes"  # use of rotated images in training
    test_rotations: Literal["same", "episode", "none"] = "same"  # use of rotated images in other splits
    size: int = 28  # height and width of images, in pixels
    resize: Resize = "lanczos"  # resampling filter
    ink: Literal["bright", "dark"] = "bright"  # value of ink: 1 on 0 (bright) or 0 on 1 (dark)

    name = "omniglot"
    splits = ("train", "val", "test", "ood")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.size <= 105:
            raise ValueError(f"size is {self.size}; must be from 1 to 105 pixels")
        if min(self.random_sizes) < 0 or sum(self.random_sizes) > 1623:
            raise ValueError(f"random_sizes is {self.random_sizes}; must be numbers that sum to at most 1623")
        if self.sampler == "fixed":
            _check_images(shots=self.shots, test_queries=self.test_queries)
            _check_images(
                train_shots=self.shots if self.train_shots is None else self.train_shots, queries=self.queries
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 1, self.size, self.size

    def pool(self, split: Split) -> ClassPool:
        self._check_split(split)
        return _pool(self._without_sizes(), omniglot_folder(self.data_dir), split)


def _check_images(**counts: int) -> None:
    """Check that every class has enough images."""
    total = sum(counts.values())
    if total > 20:
        numbers = " + ".join(map(str, counts.values()))
        raise ValueError(f"{' + '.join(counts)} is {numbers} = {total}; a class of omniglot has 20 images")


@lru_cache(maxsize=32)
def _pool(family: Omniglot, folder: Path, split: Split) -> ClassPool:
    source = omniglot_classes(folder, family.size, family.resize, family.ink)
    chosen = split_classes(source, family.class_split, family.random_sizes, family.split_seed)
    classes = chosen["test" if split == "ood" else split]
    if split == "ood":
        seen = {source.groups[index] for index in chosen["train"]}
        classes = [index for index in classes if source.groups[index] not in seen]
    if not classes:
        raise ValueError(f"split is {split!r}; class_split {family.class_split!r} of omniglot leaves no class for it")
    rotations = family.rotations
    if split != "train" and family.test_rotations != "same":
        rotations = family.test_rotations
    if split == "ood" and rotations != "none":
        rotations = "episode"
    return pool_of(
        source,
        classes,
        all_turns=rotations == "classes",
        by_group=split == "ood" or family.sampler == "meta_dataset",
        turned_by={"augment": "class", "episode": "episode"}.get(rotations),
    )


def split_classes(
    source: ImageClasses, class_split: str, random_sizes: tuple[int, int, int], seed: int
) -> dict[str, list[int]]:
    """The classes of train, val and test."""
    if class_split == "random":
        order = torch.randperm(len(source.names), generator=torch.Generator().manual_seed(seed)).tolist()
        train, val, test = random_sizes
        ends = (order[:train], order[train : train + val], order[train + val : train + val + test])
        return {split: sorted(part) for split, part in zip(("train", "val", "test"), ends, strict=True)}
    if class_split == "vinyals":
        number = {name: index for index, name in enumerate(source.names)}
        return {
            split: [number[name] for name in split_lines(f"omniglot_vinyals_{split}.txt")]
            for split in ("train", "val", "test")
        }
    held_out = _SMALLEST if class_split == "meta_dataset" else ()
    background = len(source.names) - 659  # the classes of the first archive come first
    return {
        "train": [index for index in range(background) if source.groups[index] not in held_out],
        "val": [index for index in range(background) if source.groups[index] in held_out],
        "test": list(range(background, len(source.names))),
    }


def omniglot_folder(data_dir: str | None) -> Path:
    return data_folder(
        data_dir,
        folders=("omniglot", "omniglot-py"),
        expected=("images_background.zip", "images_background"),
        what="Omniglot (images_background.zip and images_evaluation.zip of github.com/brendenlake/omniglot)",
    )


@lru_cache(maxsize=4)
def omniglot_classes(folder: Path, size: int, resize: Resize, ink: str) -> ImageClasses:
    """All characters, [32460, 1, size, size], in the order of their names.

    Raises:
        DataError: when an archive or folder is missing, or does not hold the official images.
    """
    names = [name for part in PARTS for name in _names(folder, part)]
    images = decoded(
        "omniglot",
        {"size": size, "resize": resize, "digest": DIGEST},
        (len(names), 1, size, size),
        lambda: _images(folder, size, resize),
    )
    files: dict[str, int] = {}
    for name in names:
        _, alphabet, character, _ = name.split("/")
        key = f"{alphabet}/{character}"
        files[key] = files.get(key, 0) + 1
    return ImageClasses(
        images if ink == "bright" else 255 - images,
        torch.tensor(list(files.values())),
        tuple(files),
        tuple(name.split("/")[0] for name in files),
    )


def _names(folder: Path, part: str) -> list[str]:
    """The image files of an archive or its unpacked folder, in order."""
    archive = folder / f"{part}.zip"
    try:
        if archive.is_file():
            with zipfile.ZipFile(archive) as file:
                found = {entry.filename: entry.file_size for entry in file.infolist()}
                encrypted = any(entry.flag_bits & _ENCRYPTED for entry in file.infolist())
        else:
            paths = [path for path in (folder / part).glob("*/*/*.png") if path.is_file()]
            found = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
            encrypted = False
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{archive} cannot be read: {error}") from error
    where = archive if archive.is_file() else folder / part
    if encrypted:
        raise DataError(f"{where} is encrypted; Omniglot's own archives are not")
    names = sorted(name for name in found if _FILE.fullmatch(name))
    if len(names) != PARTS[part]:
        raise DataError(f"{where} holds {len(names)} images of Omniglot; must hold {PARTS[part]}")
    large = next((name for name in names if found[name] > _MAX_BYTES), None)
    if large is not None:
        raise DataError(
            f"{where} is not Omniglot's: {large} has {found[large]:,} bytes; must have {_MAX_BYTES:,} at most"
        )
    return names


def _images(folder: Path, size: int, resize: Resize) -> Iterator[Pixels]:
    """Every image with ink as 255; at the end, the files are checked to be the official ones."""
    digest = hashlib.sha256()
    try:
        for part in PARTS:
            archive = folder / f"{part}.zip"
            opened = zipfile.ZipFile(archive) if archive.is_file() else None
            for name in _names(folder, part):
                content = (folder / name).read_bytes() if opened is None else opened.read(name)
                digest.update(name.encode() + content)
                yield _decode(content, size, resize)
            if opened is not None:
                opened.close()
    except DataError:
        raise
    except Exception as error:  # whatever zipfile, its decompressors and Pillow raise for damaged files
        raise DataError(f"Omniglot in {folder} is damaged: {error}") from error
    if digest.hexdigest() != DIGEST:
        raise DataError(f"Omniglot in {folder} is not the official one: fetch its two archives again")


def _decode(content: bytes, size: int, resize: Resize) -> Pixels:
    with Image.open(io.BytesIO(content)) as picture:
        if picture.size != _SIZE:
            raise ValueError(
                f"an image has {picture.width} x {picture.height} pixels; must have {_SIZE[0]} x {_SIZE[1]}"
            )
        return 255 - square_pixels(picture, channels=1, size=size, resize=resize)
