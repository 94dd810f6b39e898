"""Users' colour images: miniImageNet, tieredImageNet, CIFAR-FS and FC100 by their published splits, or any folder.

Ravi, Larochelle. Optimization as a model for few-shot learning (2017), for the split of miniImageNet. Ren et al.
Meta-learning for semi-supervised few-shot classification (2018), tieredImageNet. Bertinetto et al. Meta-learning with
differentiable closed-form solvers (2019), CIFAR-FS. Oreshkin et al. TADAM (2018), FC100.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor

from metarl.checks import positive
from metarl.fewshot.images.cifar import binary_folder, read_binary
from metarl.fewshot.images.class_set import ClassPool, ImageClasses, channel_statistics, pool_of
from metarl.fewshot.images.data import FaultyDataError, data_folder, split_lines
from metarl.fewshot.images.family import ImageFamily
from metarl.fewshot.images.folders import (
    Form,
    ImageClass,
    check_number,
    classes_below,
    is_passed_over,
    named_classes,
    read_classes,
)
from metarl.fewshot.images.pixels import Background, Fit, Resize
from metarl.protocols import Split

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PhotoFamily(ImageFamily):
    """Colour images of a folder, resized to one size.

    Values lie in [0, 1], or are normalised per channel, with the statistics of ImageNet ("imagenet") or of the training
    classes ("train").
    """

    size: int = 84  # height and width of images, in pixels
    resize: Resize = "lanczos"  # resampling filter
    fit: Fit = "stretch"  # handling of images that are not square: stretched, or cropped to their middle
    background: Background = "white"  # colour behind the transparent parts of images
    white: float | None = None  # value of white in images of over 8 bits; None: the maximum of 8, 10, 12, ... bits
    normalisation: Literal["none", "imagenet", "train"] = "none"  # source of the statistics that normalise channels

    splits = ("train", "val", "test")
    folders: ClassVar[tuple[str, ...]]  # names of folders in the data folder that may contain the data set
    what: ClassVar[str]  # description of the data, for the error when they are missing

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1:
            raise ValueError(f"size is {self.size}; must be at least 1 pixel")
        positive(self, "white")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 3, self.size, self.size

    @property
    def form(self) -> Form:
        return Form(self.image_shape[0], self.size, self.resize, self.fit, self.background, self.white)

    def pool(self, split: Split) -> ClassPool:
        self._check_split(split)
        folder = data_folder(self.data_dir, folders=self.folders, expected=(), what=self.what)
        return _pool(self._without_sizes(), folder, split)

    def read(self, folder: Path, split: Split) -> tuple[ImageClasses, Sequence[int]]:
        """The images, and the classes of them that belong to the split."""
        raise NotImplementedError


@lru_cache(maxsize=32)
def _pool(family: PhotoFamily, folder: Path, split: Split) -> ClassPool:
    source, classes = family.read(folder, split)
    pool = pool_of(source, classes)
    if family.normalisation == "none":
        return pool
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    if family.normalisation == "train":
        mean, std = _training_statistics(replace(family, normalisation="none"), folder)
    return replace(pool, mean=mean, std=std)


@lru_cache(maxsize=8)
def _training_statistics(family: PhotoFamily, folder: Path) -> tuple[Tensor, Tensor]:
    return channel_statistics(_pool(family, folder, "train"))


@dataclass(frozen=True)
class MiniImageNet(PhotoFamily):
    """100 classes of ImageNet, 600 images each: 64 / 16 / 20 for train / val / test (Ravi and Larochelle).

    Read from folders named after classes (n01532829, ...), on any level, or from files whose names start with these.
    """

    images_per_class: int | None = 600  # images that each class must have; None: any number

    name = "mini_imagenet"
    folders = ("mini_imagenet", "miniimagenet", "mini-imagenet", "miniImageNet")
    what = "miniImageNet (folders of images that are named n01532829, ..., or files whose names begin so)"

    def read(self, folder: Path, split: Split) -> tuple[ImageClasses, Sequence[int]]:
        wanted = [("", name) for name in split_lines(f"mini_imagenet_{split}.txt")]
        return _all(self, named_classes(folder, wanted, self.images_per_class, by_file=True))


@dataclass(frozen=True)
class TieredImageNet(PhotoFamily):
    """608 classes of ImageNet in 34 superclasses that splits do not share: 351 / 97 / 160 for train / val / test.

    Read from folders named after classes (n01530575, ...), on any level, e.g. ImageNet's own training folder.
    """

    name = "tiered_imagenet"
    folders = ("tiered_imagenet", "tieredimagenet", "tiered-imagenet", "tieredImageNet")
    what = "tieredImageNet (folders of images that are named n01530575, ...)"

    def read(self, folder: Path, split: Split) -> tuple[ImageClasses, Sequence[int]]:
        return _all(self, named_classes(folder, _pairs(split_lines(f"tiered_imagenet_{split}.txt")), None))


@dataclass(frozen=True)
class CIFARFS(PhotoFamily):
    """CIFAR-100, 64 / 16 / 20 classes for train / val / test.

    Read from its binary version, or from folders named after classes (apple, ...), on any level.
    """

    size: int = 32  # height and width of images, in pixels
    images_per_class: int | None = 600  # images that each class must have; None: any number

    name = "cifar_fs"
    folders = ("cifar100", "cifar-100-binary", "cifar_fs", "cifar-fs")
    what = "CIFAR-100 (the folder cifar-100-binary of cs.toronto.edu/~kriz/cifar.html, or folders of images by class)"

    def read(self, folder: Path, split: Split) -> tuple[ImageClasses, Sequence[int]]:
        return _cifar(self, folder, _pairs(split_lines(f"cifar_fs_{split}.txt")), self.images_per_class)


@dataclass(frozen=True)
class FC100(PhotoFamily):
    """CIFAR-100 with splits that share no superclass: 12 / 4 / 4 superclasses of five for train / val / test.

    Read like CIFAR-FS.
    """

    size: int = 32  # height and width of images, in pixels
    images_per_class: int | None = 600  # images that each class must have; None: any number

    name = "fc100"
    folders = ("cifar100", "cifar-100-binary", "fc100")
    what = CIFARFS.what

    def read(self, folder: Path, split: Split) -> tuple[ImageClasses, Sequence[int]]:
        superclasses = split_lines(f"fc100_{split}.txt")
        hundred = [pair for part in ("train", "val", "test") for pair in _pairs(split_lines(f"cifar_fs_{part}.txt"))]
        wanted = [(group, name) for group, name in hundred if group in superclasses]
        return _cifar(self, folder, wanted, self.images_per_class)


@dataclass(frozen=True)
class ImageFolder(PhotoFamily):
    """Your own images: `data_dir` contains one folder per class, or such folders in train, val, test and ood.

    Without a folder train, classes are split at random by `split_shares` and `split_seed`.
    """

    channels: Literal[1, 3] = 3  # number of colour channels; 1: grey
    split_shares: tuple[float, float, float] = (0.64, 0.16, 0.2)  # fractions of the classes for train, val and test
    split_seed: int = 0  # seed of the random split

    name = "image_folder"
    splits = ("train", "val", "test", "ood")
    checked_splits = splits
    folders = ("image_folder",)
    what = "Images (a folder for each class, or such folders in folders train, val and test)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.split_shares) < 0 or not 0.999 < sum(self.split_shares) < 1.001:
            raise ValueError(f"split_shares is {self.split_shares}; must be numbers from 0 that sum to 1")
        if self.channels == 1 and self.normalisation == "imagenet":
            raise ValueError("normalisation is 'imagenet'; images with channels 1 have 'none' or 'train'")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.channels, self.size, self.size

    def image_counts(self, split: Split) -> dict[str, int]:
        contents = self._contents(data_folder(self.data_dir, folders=self.folders, expected=(), what=self.what))
        numbers = contents.numbers.get(split, [])
        return {contents.classes[number].name: len(contents.classes[number].files) for number in numbers}

    def read(self, folder: Path, split: Split) -> tuple[ImageClasses, Sequence[int]]:
        """The images of all splits, to report faults in any of them at once, and the split's classes."""
        contents = self._contents(folder)
        if not contents.numbers.get(split) and not contents.faults:
            raise ValueError(f"split is {split!r}; {folder} has no class for it")
        try:
            source = read_classes(self.name, contents.classes, self.form)
        except FaultyDataError as error:
            raise FaultyDataError([*contents.faults, *error.faults]) from error
        if contents.faults:
            raise FaultyDataError(contents.faults)
        return source, contents.numbers[split]

    def _contents(self, folder: Path) -> _Contents:
        return _split_by_folder(folder) if (folder / "train").is_dir() else self._split_by_chance(folder)

    def _split_by_chance(self, folder: Path) -> _Contents:
        listing = classes_below(folder)
        count = len(listing.classes)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self.split_seed)).tolist()
        train, val = (round(share * count) for share in self.split_shares[:2])
        parts = {"train": order[:train], "val": order[train : train + val], "test": order[train + val :]}
        return _Contents(listing.classes, {split: sorted(part) for split, part in parts.items()}, listing.faults)


_SPLIT_FOLDERS = {
    "train": ("train",),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
    "ood": ("ood",),
}


@dataclass(frozen=True)
class _Contents:
    """The contents of a folder of images, for all splits."""

    classes: tuple[ImageClass, ...]
    numbers: Mapping[str, Sequence[int]]  # class numbers of each split
    faults: tuple[str, ...]  # phrases, one per fault of the folder


def _split_by_folder(folder: Path) -> _Contents:
    classes: list[ImageClass] = []
    numbers: dict[str, Sequence[int]] = {}
    faults: list[str] = []
    for split, names in _SPLIT_FOLDERS.items():
        listings = [classes_below(folder / name) for name in names if (folder / name).is_dir()]
        own = [each for listing in listings for each in listing.classes]
        faults += [fault for listing in listings for fault in listing.faults]
        numbers[split] = range(len(classes), len(classes) + len(own))
        classes += own
    training = {classes[number].name for number in numbers["train"]}
    for split in ("val", "test", "ood"):
        shared = [name for number in numbers[split] if (name := classes[number].name) in training]
        faults += [f"class {name} of {folder} is in train and in {split}; splits share no class" for name in shared]
    known = [name for names in _SPLIT_FOLDERS.values() for name in names]
    unknown = [each for each in sorted(folder.iterdir()) if each.is_dir() and each.name not in known]
    faults += [f"{each} is none of the splits {', '.join(known)}" for each in unknown if not is_passed_over(each.name)]
    return _Contents(tuple(classes), numbers, tuple(faults))


def _all(family: PhotoFamily, classes: Sequence[ImageClass]) -> tuple[ImageClasses, Sequence[int]]:
    return read_classes(family.name, classes, family.form), range(len(classes))


def _cifar(
    family: PhotoFamily, folder: Path, wanted: Sequence[tuple[str, str]], images_per_class: int | None
) -> tuple[ImageClasses, Sequence[int]]:
    binary = binary_folder(folder)
    if binary is None:
        return _all(family, named_classes(folder, wanted, images_per_class))
    source = _binary(binary, family.form)
    number = {name: index for index, name in enumerate(source.names)}
    for _, name in wanted:
        check_number(name, int(source.counts[number[name]]) if name in number else 0, binary, images_per_class)
    return source, [number[name] for _, name in wanted]


@lru_cache(maxsize=4)
def _binary(folder: Path, form: Form) -> ImageClasses:
    return read_binary(folder, form)


def _pairs(lines: Iterable[str]) -> list[tuple[str, str]]:
    """The group and name of each class, from lines group/name."""
    return [(group, name) for group, name in (line.split("/") for line in lines)]
