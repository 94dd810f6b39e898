"""Classes that are hard to tell apart: few-shot tasks of images by the confusions of a learner so far.

Liu et al. Adaptive task sampling for meta-learning (2020), for the idea of sampling by pairs of classes.

A task's hardness is the sum of the error rates of its classes and of the rates at which each pair of them was confused.
Many tasks of the family are drawn for each that is proposed; one of them is chosen, by the rank of its hardness.

Deviations: 1. the paper draws the classes of a task one by one, by their confusions with those before; choosing among
the family's own tasks keeps its rules, such as groups of classes and fixed labels. 2. rates are moving averages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from metarl.checks import at_least, in_range, positive
from metarl.task_samplers.plr import rank_weights
from metarl.task_samplers.sampler import DrawTasks

_MOST_CLASSES = 5000  # of a training split, as there is a number for every pair


@dataclass(frozen=True)
class ClassAwareConfig:
    """Few-shot tasks of classes that the learner confused."""

    candidates: int = 32  # number of the family's tasks from which each proposed one is chosen
    temperature: float = 0.5  # temperature of the ranks by hardness; near 0: always the hardest
    own_share: float = 0.2  # fraction of the tasks that come from the family's own distribution
    memory: float = 0.9  # fraction of a rate that stays when a class or a pair is met again

    chooses: ClassVar[str] = "classes"

    def __post_init__(self) -> None:
        at_least(self, 2, "candidates")
        positive(self, "temperature")
        in_range(self, 0, 1, "own_share")
        in_range(self, 0, 1, "memory")

    def make(self, draw: DrawTasks, device: torch.device) -> ClassAwareSampler:
        return ClassAwareSampler(self, draw, device)


class ClassAwareSampler:
    """The error rate of each class, and how often each pair was confused; both grow with the classes that are met."""

    learns = True

    def __init__(self, config: ClassAwareConfig, draw: DrawTasks, device: torch.device) -> None:
        self.config = config
        self._draw = draw
        self._confusion = torch.zeros(0, 0, device=device)  # [P, P] rate of queries called another
        self._error = torch.zeros(0, device=device)  # [P] rate at which queries of a class were called any other

    def propose(self, count: int, generator: torch.Generator) -> Any:
        candidates: Any = self._draw(count * self.config.candidates, generator)
        self._grow(int(candidates.classes.max()) + 1)
        hardness = self.hardness(candidates.classes).reshape(count, -1)
        weights = torch.stack([rank_weights(row, self.config.temperature) for row in hardness])
        own = torch.rand(count, generator=generator, device=weights.device) < self.config.own_share
        weights[own] = 1.0
        chosen = weights.multinomial(1, generator=generator)[:, 0]
        return candidates[torch.arange(count, device=chosen.device) * self.config.candidates + chosen]

    def hardness(self, classes: Tensor) -> Tensor:
        """The expected confusion of tasks with classes [N, W]: [N]."""
        pairs = self._confusion[classes[:, :, None], classes[:, None]]  # [N, W, W]
        return pairs.sum((1, 2)) + self._error[classes].sum(1)

    def confused(self, tasks: Any, y: Tensor, predicted: Tensor) -> None:
        """Learn from the queries of tasks: their labels y [N, Q], and those that the learner gave them."""
        keep, ways = self.config.memory, tasks.classes.shape[1]
        asked, named = (functional.one_hot(labels, ways).to(self._confusion) for labels in (y, predicted))  # [N, Q, W]
        rates = asked.mT @ named / asked.sum(1).clamp(min=1)[..., None]  # [N, W, W]
        rates.diagonal(dim1=1, dim2=2).zero_()
        for classes, rate in zip(tasks.classes, rates, strict=True):  # one by one, as tasks share classes
            pairs = classes[:, None], classes
            self._confusion[pairs] = keep * self._confusion[pairs] + (1 - keep) * rate
            self._error[classes] = keep * self._error[classes] + (1 - keep) * rate.sum(1)

    def report(self, tasks: Any, scores: Tensor) -> dict[str, float]:
        hardness = self.hardness(tasks.classes)
        return {"sampler/hardness": float(hardness.mean()), "sampler/classes": float(len(tasks.classes.unique()))}

    def _grow(self, num_classes: int) -> None:
        old = len(self._confusion)
        if num_classes > _MOST_CLASSES:
            raise ValueError(f"training tasks have {num_classes} classes; this sampler takes at most {_MOST_CLASSES}")
        if num_classes > old:
            more = num_classes - old
            self._confusion = functional.pad(self._confusion, (0, more, 0, more))
            self._error = functional.pad(self._error, (0, more))

    def state_dict(self) -> dict[str, Any]:
        """Only what is not zero, as most pairs have never met."""
        pairs = self._confusion.nonzero()
        rates = self._confusion[pairs[:, 0], pairs[:, 1]]
        return {"rates": [pairs, rates, self._error]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pairs, rates, self._error = (values.to(self._confusion.device) for values in state["rates"])
        self._confusion = self._confusion.new_zeros(len(self._error), len(self._error))
        self._confusion[pairs[:, 0], pairs[:, 1]] = rates
