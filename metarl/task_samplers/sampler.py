"""The protocol between a source of experience and what chooses its training tasks; and the plain choice, at random."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from metarl.records import Record

DrawTasks = Callable[[int, torch.Generator], Record]  # so many tasks of a family's own training distribution


@runtime_checkable
class TaskSampler(Protocol):
    """Chooses training tasks. Evaluation and validation never use it: their tasks are the family's own."""

    @property
    def learns(self) -> bool:
        """Whether the tasks proposed last are to be learned from; others are only run, and their scores reported."""
        ...

    def propose(self, count: int, generator: torch.Generator) -> Any:
        """Tasks with leading axis `count`, on the generator's device."""
        ...

    def report(self, tasks: Any, scores: Tensor) -> dict[str, float]:
        """Take the scores [count] of the tasks proposed last, higher is better; returns what to log, by tag."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact resume needs: tensors and plain Python only."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class SamplerConfig(Protocol):
    """The configuration of a sampler: a frozen dataclass."""

    chooses: ClassVar[str]  # what tells its tasks apart: "parameters", "classes" or "anything"

    def make(self, draw: DrawTasks, device: torch.device) -> TaskSampler:
        """A fresh sampler of the tasks that `draw` gives.

        Raises:
            ValueError: when it cannot choose among such tasks.
        """
        ...


@dataclass(frozen=True)
class UniformConfig:
    """The family's own distribution: fresh tasks, whatever was learned."""

    chooses: ClassVar[str] = "anything"

    def make(self, draw: DrawTasks, device: torch.device) -> UniformSampler:
        return UniformSampler(draw)


class UniformSampler:
    """Draws from the family's own distribution."""

    learns = True

    def __init__(self, draw: DrawTasks) -> None:
        self._draw = draw

    def propose(self, count: int, generator: torch.Generator) -> Any:
        return self._draw(count, generator)

    def report(self, tasks: Any, scores: Tensor) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass
