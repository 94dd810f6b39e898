"""The base class of image families: the sizes of an episode, and its sampling from the classes of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from metarl.checks import at_least
from metarl.fewshot.episode import FewShotEpisode
from metarl.fewshot.images.class_set import ClassPool
from metarl.fewshot.images.data import FaultyDataError
from metarl.fewshot.images.sampling import (
    FixedSampler,
    MetaDatasetSampler,
    Sampler,
    draw,
    draw_ways,
    draw_with_fixed_labels,
)
from metarl.fewshot.problem import Classification
from metarl.protocols import Split
from metarl.records import Record

SamplerName = Literal["fixed", "meta_dataset"]
_NAMED = 3  # number of classes that a message lists


@dataclass(frozen=True)
class ClassTasks(Record):
    """The classes of tasks, in the order of their labels."""

    classes: Tensor  # [N, W] int64, members of the pool of a split


@dataclass(frozen=True)
class ImageFamily:
    """N-way K-shot classification of the images of a data set, which is read when the first episode is sampled.

    With the sampler "meta_dataset", sizes vary between episodes and classes: `ways` is then the largest number of ways,
    `queries` and `test_queries` are the largest numbers of queries per class (10 in its paper), and `shots` is ignored.

    With `fixed_labels`, the training classes are partitioned once into `ways` sets, and a task has one class of each: a
    learner can then memorise which label a class has, and needs no support (Yin et al. Meta-learning without
    memorization, 2020). Labels in other splits are drawn anew for each task.
    """

    ways: int = 5  # number of classes per task
    shots: int = 1  # number of support images per class
    queries: int = 15  # number of query images per class in training
    test_queries: int = 15  # number of query images per class in evaluation
    train_ways: int | None = None  # number of classes per task in meta-training; None: `ways`
    train_shots: int | None = None  # number of support images per class in meta-training; None: `shots`
    sampler: SamplerName = "fixed"  # sizes of tasks: fixed, or varying as in Meta-Dataset
    fixed_labels: bool = False  # whether a training class has one label in all tasks, so labels can be memorised
    data_dir: str | None = None  # folder of the data; None: $METARL_DATA, or else ~/.cache/metarl

    name: ClassVar[str]
    splits: ClassVar[tuple[Split, ...]]
    tasks_have: ClassVar[str] = "classes"
    checked_splits: ClassVar[tuple[Split, ...]] = ("train", "test")  # splits read by `check_data`

    def __post_init__(self) -> None:
        least_of = {"ways": 2, "shots": 1, "queries": 1, "test_queries": 1, "train_ways": 2, "train_shots": 1}
        for field, least in least_of.items():
            at_least(self, least, field)
        least = MetaDatasetSampler.least_ways
        if self.sampler == "meta_dataset" and self.ways < least:
            raise ValueError(f"ways is {self.ways}; the sampler meta_dataset needs at least {least}")
        if self.fixed_labels and self.varies:
            raise ValueError("fixed_labels is True; must be False with the sampler meta_dataset")

    @property
    def training(self) -> Self:
        """The family used in meta-training."""
        ways = self.ways if self.train_ways is None else self.train_ways
        shots = self.shots if self.train_shots is None else self.train_shots
        # Evaluation's queries and the training shots together may be too many.
        return replace(self, ways=ways, shots=shots, test_queries=self.queries, train_ways=None, train_shots=None)

    @property
    def varies(self) -> bool:
        return self.sampler == "meta_dataset"

    @property
    def problem(self) -> Classification:
        return Classification(image_shape=self.image_shape, ways=self.ways)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        raise NotImplementedError

    def pool(self, split: Split) -> ClassPool:
        """The classes of a split; the first call reads the data set.

        Raises:
            ValueError: when the family has no such split.
            DataError: when the data set is missing or damaged.
        """
        raise NotImplementedError

    def check_data(self) -> None:
        """Read the data of all splits in use, and check that their classes have enough images for an episode.

        Raises:
            DataError: when the data set is missing or damaged, or classes have too few images; names every fault.
        """
        faults: list[str] = []
        for split in self.checked_splits:
            try:
                counts = self.image_counts(split)
                faults += self._too_few(split, counts)
                if counts:
                    self.pool(split)
            except FaultyDataError as error:
                faults += [fault for fault in error.faults if fault not in faults]
        if faults:
            raise FaultyDataError(faults)

    def image_counts(self, split: Split) -> dict[str, int]:
        """The number of images of each class of a split; empty if it has no class.

        Raises:
            DataError: when the data set is missing or damaged.
        """
        pool = self.pool(split)
        counts = pool.source.counts[pool.classes].tolist()
        return dict(zip([pool.source.names[index] for index in pool.classes.tolist()], counts, strict=True))

    def _too_few(self, split: Split, counts: Mapping[str, int]) -> list[str]:
        """One phrase that lists the classes of a split with too few images for an episode; empty if there are none."""
        shots, queries = self.shots, self.test_queries
        if split == "train":
            shots, queries = self.training.shots, self.queries
        if self.varies:
            shots, queries = 1, 1
        short = [f"{name} has {count}" for name, count in counts.items() if count < shots + queries]
        if not short:
            return []
        more = f" and {len(short) - _NAMED} more have too few" if len(short) > _NAMED else ""
        needed = f"shots + queries is {shots} + {queries} = {shots + queries} images of a class"
        return [f"in split {split}, {needed}; class {', class '.join(short[:_NAMED])}{more}"]

    def episode(
        self,
        num_tasks: int,
        split: Split,
        *,
        shots: int | None = None,
        queries: int | None = None,
        generator: torch.Generator,
    ) -> FewShotEpisode:
        """Fresh tasks on the generator's device; shots, queries: numbers per class; None for the family's own.

        x [N, K, C, H, W] float32 and y [N, K] int64 below `ways`, ordered by shot: one example of every way in random
        order, then a second one of each, and so on. Support and query images of a class are distinct.

        Raises:
            ValueError: when the split is unknown, or has too few classes, or one of its classes too few images.
            DataError: when the data set is missing or damaged.
        """
        pool = _on_device(self.pool(split), generator.device)
        members = None
        if self.fixed_labels and split == "train":
            members = draw_with_fixed_labels(len(pool), self.ways, num_tasks, generator)
        return draw(pool, num_tasks, self._sampler(shots, queries), generator, members)

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> ClassTasks:
        """The classes of fresh tasks.

        Raises:
            ValueError: when the split is unknown or has too few classes, or the number of ways varies.
        """
        if self.varies:
            raise ValueError("the sampler meta_dataset varies the number of ways; it must be fixed to choose classes")
        pool = _on_device(self.pool(split), generator.device)
        if self.fixed_labels and split == "train":
            return ClassTasks(draw_with_fixed_labels(len(pool), self.ways, num_tasks, generator))
        return ClassTasks(draw_ways(pool, num_tasks, self._sampler(None, None), generator)[0])

    def episode_of(self, tasks: ClassTasks, split: Split, *, generator: torch.Generator) -> FewShotEpisode:
        """Fresh images of given classes, ordered as in `episode`."""
        pool = _on_device(self.pool(split), generator.device)
        return draw(pool, len(tasks), self._sampler(None, None), generator, tasks.classes)

    def _sampler(self, shots: int | None, queries: int | None) -> Sampler:
        queries = self.queries if queries is None else queries
        if self.sampler == "meta_dataset":
            if shots not in (None, self.shots):
                raise ValueError(f"shots is {shots}; the sampler meta_dataset draws its own")
            return MetaDatasetSampler(most_ways=self.ways, queries=queries)
        return FixedSampler(self.ways, self.shots if shots is None else shots, queries)

    def _without_sizes(self) -> Self:
        """A key for looking up pools, equal for all families with the same classes."""
        sizes = {"ways": 5, "shots": 1, "queries": 1, "test_queries": 1, "train_ways": None, "train_shots": None}
        return replace(self, **sizes, fixed_labels=False)  # pyright: ignore[reportArgumentType], an instance

    def _check_split(self, split: Split) -> None:
        if split not in self.splits:
            *others, last = self.splits
            raise ValueError(f"split is {split!r}; {self.name} has {', '.join(others)} and {last}")


@lru_cache(maxsize=32)
def _on_device(pool: ClassPool, device: torch.device) -> ClassPool:
    return pool.to(device)
