"""The few-shot episode, and the interfaces of few-shot families and learners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from metarl.fewshot.problem import Problem
from metarl.protocols import Split
from metarl.records import Examples, Record


@dataclass(frozen=True)
class FewShotEpisode(Record):
    """The support and query sets of N tasks.

    In classification, the support is ordered by shot, with one example of every class in each; its first `ways * shots`
    examples are therefore a smaller support.
    """

    support: Examples  # [N, K, ...], the examples to adapt to
    query: Examples  # [N, Q, ...], the examples to predict
    tasks: Record | None = None  # [N, ...], the parameters of the tasks, where numbers make them; no learner reads them

    @property
    def num_examples(self) -> int:
        """The number of examples of all tasks together, without padding."""
        sets = (self.support, self.query)
        return sum(data.x.shape[:2].numel() if data.valid is None else int(data.valid.sum()) for data in sets)


@runtime_checkable
class FewShotFamily(Protocol):
    """A distribution over few-shot tasks with named splits: a frozen dataclass whose fields are its arguments."""

    @property
    def name(self) -> str: ...  # the catalog's name

    @property
    def shots(self) -> int: ...  # support examples per task, or per class in classification

    @property
    def queries(self) -> int: ...  # query examples per training task, or per class in classification

    @property
    def test_queries(self) -> int: ...  # query examples per test task; more of them reduce the variance

    @property
    def varies(self) -> bool: ...  # whether the number of shots varies; supports then have `valid`

    @property
    def training(self) -> FewShotFamily: ...  # the family used in meta-training, often the same

    @property
    def problem(self) -> Problem: ...

    def episode(
        self,
        num_tasks: int,
        split: Split,
        *,
        shots: int | None = None,
        queries: int | None = None,
        generator: torch.Generator,
    ) -> FewShotEpisode:
        """Fresh tasks on the generator's device, determined by its seed.

        shots, queries: None for the family's own.

        Raises:
            ValueError: when the split is not declared, or there are too few examples.
        """
        ...


@runtime_checkable
class HasChoosableTasks(Protocol):
    """Optional members of a `FewShotFamily` with which a sampler can choose its training tasks."""

    @property
    def tasks_have(self) -> str: ...  # what tells tasks apart: "parameters" or "classes"

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> Record:
        """Tasks with leading axis `num_tasks`, without their examples."""
        ...

    def episode_of(self, tasks: Any, split: Split, *, generator: torch.Generator) -> FewShotEpisode:
        """Fresh examples of tasks of a split, with the family's own numbers of shots and queries."""
        ...


@runtime_checkable
class ChecksData(Protocol):
    """An optional method of a `FewShotFamily` whose tasks come from files."""

    def check_data(self) -> None:
        """Read all that training and evaluation will read; called before anything is trained.

        Raises:
            UserError: naming everything that is missing, damaged or too little.
        """
        ...


class FewShotLearner(Protocol):
    """A few-shot learner."""

    @property
    def point(self) -> str: ...  # unit of its adaptation curve: "step", "shot" or "example"

    @property
    def facts(self) -> Mapping[str, Any]:
        """Facts to report together with its scores, e.g. its normalisation."""
        ...

    def predictions(self, episode: FewShotEpisode, num_points: int) -> Tensor:
        """Predictions for the queries after 0, 1, ... points of adaptation: [num_points + 1, N, Q, out].

        Each step uses the whole support; k shots or examples are the first k of the support.
        """
        ...

    def update(self, experience: FewShotEpisode, generator: torch.Generator) -> dict[str, float]:
        """The meta-update from one batch of tasks.

        Returns metrics to log, including `train/query_<measure>`, the score on training queries.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything an exact resume needs: tensors and plain Python only."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@runtime_checkable
class ChecksEpisodes(Protocol):
    """An optional method of a `FewShotLearner` that cannot learn from episodes of every size."""

    def check_episodes(self, train: FewShotEpisode, test: FewShotEpisode) -> None:
        """Called with one task of training and one of evaluation before anything is trained.

        Raises:
            ValueError: when it cannot learn from the one, or predict for the other; names the setting.
        """
        ...


@runtime_checkable
class ShowsStates(Protocol):
    """An optional method of a `FewShotLearner` that lets probes look at what it holds of each task."""

    def state_vectors(self, episode: FewShotEpisode, num_points: int) -> Tensor:
        """The states after 0, 1, ... points of adaptation, as vectors: [num_points + 1, N, D]."""
        ...


class FewShotLearnerConfig(Protocol):
    """The configuration of a few-shot learner: a frozen dataclass, defined in the learner's own file."""

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> FewShotLearner:
        """A fresh learner on the generator's device; `num_iterations` is the length of its schedules."""
        ...


def num_ways(episode: FewShotEpisode) -> int:
    """The number of classes per task of a classification episode."""
    return int(episode.support.y.max()) + 1


def generator_of(seed: int, index: int, device: torch.device | str) -> torch.Generator:
    """The generator of an episode's randomness, determined by the seed and the episode's number."""
    mixed = int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(mixed % 2**63)
