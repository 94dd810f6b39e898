"""The episode of supervised few-shot learning, and what families and learners of it are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metarl.fewshot.problem import Problem
from metarl.protocols import Split
from metarl.records import Examples, Record


@dataclass(frozen=True)
class FewShotEpisode(Record):
    """What a learner is given of N tasks, and what it is then asked.

    The support of a classification comes shot after shot, an example of every class in each, so that the first
    `ways * shots` of it are a smaller support.
    """

    support: Examples  # [N, K, ...] to adapt to
    query: Examples  # [N, Q, ...] to be right on

    @property
    def num_examples(self) -> int:
        """Of all tasks together, without padding."""
        sets = (self.support, self.query)
        return sum(data.x.shape[:2].numel() if data.valid is None else int(data.valid.sum()) for data in sets)


@runtime_checkable
class FewShotFamily(Protocol):
    """A distribution over few-shot tasks with named splits: a frozen dataclass whose fields are its arguments."""

    @property
    def name(self) -> str: ...  # the catalog's name

    @property
    def shots(self) -> int: ...  # examples in a support set; of each class, where there are classes

    @property
    def queries(self) -> int: ...  # in a query set of training; of each class, where there are classes

    @property
    def test_queries(self) -> int: ...  # in a query set of evaluation, where more leave less to chance

    @property
    def varies(self) -> bool: ...  # whether tasks have different numbers of shots; supports then have `valid`

    @property
    def training(self) -> FewShotFamily: ...  # as meta-training has it; itself, where that is no different

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
        """Fresh tasks, on the generator's device: one seed, one episode.

        shots, queries: None for the family's own. An undeclared split, or more than there is, raises ValueError.
        """
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
    """A learner that predicts."""

    @property
    def point(self) -> str: ...  # what its adaptation is counted in: a "step", or a "shot" or an "example" absorbed

    @property
    def facts(self) -> Mapping[str, Any]:
        """What its scores rest on and should be stated with them, such as how it normalises."""
        ...

    def predictions(self, episode: FewShotEpisode, num_points: int) -> Tensor:
        """What it predicts for the queries after 0, 1, ... points of adaptation: [num_points + 1, N, Q, out].

        Steps use the whole support; shots and examples are its first ones.
        """
        ...

    def update(self, experience: FewShotEpisode, generator: torch.Generator) -> dict[str, float]:
        """The meta-update from one batch of tasks.

        Returns what is worth logging; among it `train/query_<measure>`, the score on training queries.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything an exact resume needs: tensors and plain Python only."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class FewShotLearnerConfig(Protocol):
    """A frozen dataclass beside the learner it configures."""

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> FewShotLearner:
        """A fresh learner on the generator's device, initialised from it; `num_iterations` ends its schedules."""
        ...


def num_ways(episode: FewShotEpisode) -> int:
    """Classes in the tasks of an episode of classification."""
    return int(episode.support.y.max()) + 1


def generator_of(seed: int, index: int, device: torch.device | str) -> torch.Generator:
    """The source of everything random in an episode, a function of the seed and the episode's number."""
    mixed = int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(mixed % 2**63)


class Digest:
    """What tells lists of episodes apart: the beginning of a hash over all their numbers."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, episode: FewShotEpisode) -> None:
        for leaf in pytree.tree_leaves(episode):
            self._hash.update(leaf.cpu().numpy().tobytes())

    def __str__(self) -> str:
        return self._hash.hexdigest()[:12]
