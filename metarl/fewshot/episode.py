"""The episode of supervised few-shot learning, and what families and learners of it are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from metarl.protocols import Split
from metarl.records import Examples, Record


@dataclass(frozen=True)
class FewShotEpisode(Record):
    """What a learner is given of N tasks, and what it is then asked."""

    support: Examples  # [N, K, ...] to adapt to
    query: Examples  # [N, Q, ...] to be right on

    @property
    def num_examples(self) -> int:
        return sum(data.x.shape[0] * data.x.shape[1] for data in (self.support, self.query))


@runtime_checkable
class FewShotFamily(Protocol):
    """A distribution over functions with named splits: a frozen dataclass whose fields are the variant's arguments."""

    @property
    def name(self) -> str: ...  # the catalog's name

    @property
    def shots(self) -> int: ...  # K, examples in a support set

    @property
    def queries(self) -> int: ...  # Q, in a query set of training

    @property
    def input_size(self) -> int: ...

    @property
    def output_size(self) -> int: ...

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> Record:
        """Tasks with leading axis `num_tasks`, on the generator's device. An undeclared split raises ValueError."""
        ...

    def examples(self, tasks: Any, num_examples: int, generator: torch.Generator) -> Examples:
        """Fresh examples of each task: x [N, num_examples, input_size] and y [N, num_examples, output_size]."""
        ...


class FewShotLearner(Protocol):
    """A learner that predicts."""

    point: str  # what its adaptation is counted in: a "step", or an "example" that it absorbs

    def curve(self, episode: FewShotEpisode, num_steps: int) -> Tensor:
        """The error on each task's queries after 0, 1, ... `num_steps` points of adaptation: [num_steps + 1, N].

        Steps use the whole support; examples are its first ones.
        """
        ...

    def update(self, experience: FewShotEpisode, generator: torch.Generator) -> dict[str, float]:
        """The meta-update from one batch of tasks; returns `train/query_error` and what else is worth logging."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything an exact resume needs: tensors and plain Python only."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class FewShotLearnerConfig(Protocol):
    """A frozen dataclass beside the learner it configures."""

    def make_learner(
        self, input_size: int, output_size: int, *, num_iterations: int, generator: torch.Generator
    ) -> FewShotLearner:
        """A fresh learner on the generator's device, initialised from it; `num_iterations` ends its schedules."""
        ...


def draw_episode(
    family: FewShotFamily, num_tasks: int, split: Split, shots: int, queries: int, *, generator: torch.Generator
) -> FewShotEpisode:
    """Fresh tasks with a support and a query set each, all from the generator: one seed, one episode."""
    tasks = family.sample(num_tasks, split, generator)
    support = family.examples(tasks, shots, generator)
    return FewShotEpisode(support, family.examples(tasks, queries, generator))
