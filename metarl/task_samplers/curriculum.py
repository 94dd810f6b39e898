"""A schedule written by hand: which of the family's tasks to train on, and for how long.

    Curriculum([Stage(50, {"velocity": (0, 1)}), Stage(100, {"velocity": (0, 2)})])

trains for 50 iterations on tasks whose velocity is at most 1, for 100 on those where it is at most 2, and then on all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from metarl.checks import at_least
from metarl.records import cat
from metarl.task_samplers.coordinates import NUM_CANDIDATES, Coordinates
from metarl.task_samplers.sampler import DrawTasks

_MOST_DRAWS = 64  # of candidates for a batch


@dataclass(frozen=True)
class Stage:
    """Some iterations on a part of the family's tasks."""

    iterations: int  # number of batches of tasks
    ranges: Mapping[str, tuple[float, float]]  # lowest and highest value of numbers of a task, by names such as goal.0

    def __post_init__(self) -> None:
        at_least(self, 1, "iterations")
        for name, limits in self.ranges.items():
            if not isinstance(limits, Sequence) or len(limits) != 2 or not limits[0] <= limits[1]:
                raise ValueError(f"ranges has {name!r}: {limits!r}; must be a lowest and a highest value")


@dataclass(frozen=True)
class Curriculum:
    """A schedule written by hand."""

    stages: Sequence[Stage]  # stages one after another; then all of the family's tasks

    chooses: ClassVar[str] = "parameters"

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        for stage in self.stages:
            if not isinstance(stage, Stage):
                raise ValueError(f"stages has {stage!r}; must be made of Stage(iterations, ranges)")

    def make(self, draw: DrawTasks, device: torch.device) -> CurriculumSampler:
        return CurriculumSampler(self, draw, device)


class CurriculumSampler:
    """The schedule, and how many batches of it are over."""

    learns = True

    def __init__(self, config: Curriculum, draw: DrawTasks, device: torch.device) -> None:
        self.config = config
        self._draw = draw
        self.coordinates = Coordinates(draw, device, of_points=False)
        self._batch = 0
        for number, stage in enumerate(config.stages, start=1):
            if unknown := sorted(set(stage.ranges) - set(self.coordinates.names)):
                names = ", ".join(self.coordinates.names)
                raise ValueError(f"stage {number} has a range of {unknown[0]}; tasks differ in {names}")
            tasks = draw(NUM_CANDIDATES, torch.Generator(device).manual_seed(0))
            if not bool(self._fits(stage, tasks).any()):
                raise ValueError(f"stage {number} has ranges {dict(stage.ranges)}, in which this family has no task")

    @property
    def stage(self) -> int:
        """The index of the present stage; the number of stages if all are over."""
        left = self._batch
        for index, stage in enumerate(self.config.stages):
            left -= stage.iterations
            if left < 0:
                return index
        return len(self.config.stages)

    def propose(self, count: int, generator: torch.Generator) -> Any:
        if self.stage == len(self.config.stages):
            return self._draw(count, generator)
        stage, found, missing = self.config.stages[self.stage], [], count
        for _ in range(_MOST_DRAWS):
            candidates = self._draw(NUM_CANDIDATES, generator)
            fitting = self._fits(stage, candidates).nonzero()[:missing, 0]
            found.append(candidates[fitting])
            missing -= len(fitting)
            if not missing:
                return cat(found)
        raise ValueError(f"stage {self.stage + 1} has ranges {dict(stage.ranges)}, in which this family has few tasks")

    def _fits(self, stage: Stage, tasks: Any) -> Tensor:
        """Whether tasks are in all ranges of a stage: [N]."""
        values = self.coordinates.values(tasks)
        fits = torch.ones(len(values), dtype=torch.bool, device=values.device)
        for name, (low, high) in stage.ranges.items():
            column = values[:, self.coordinates.names.index(name)]
            fits &= (column >= low) & (column <= high)
        return fits

    def report(self, tasks: Any, scores: Tensor) -> dict[str, float]:
        stage = float(self.stage + 1)
        self._batch += 1
        return self.coordinates.drawn(tasks) | {"sampler/stage": stage}

    def state_dict(self) -> dict[str, Any]:
        return {"batch": self._batch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._batch = state["batch"]
