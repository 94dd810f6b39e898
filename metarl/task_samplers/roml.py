"""RoML: the cross-entropy method moves the training tasks towards those with the worst scores.

Greenberg, Mannor, Chechik, Meirom. Train hard, fight easy: robust meta reinforcement learning (2023).

The aim is the mean score over the worst tasks, the conditional value at risk (CVaR). Each number of a task has a Beta
distribution with mean p on its quantiles, Beta(2 p, 2 - 2 p), which is the family's own distribution for p = 1/2. From
time to time, p moves to the mean of the tasks with the worst scores.

Deviations: 1. all numbers of all families are treated alike, as quantiles; the paper chooses a distribution for each
kind of parameter. 2. importance weights are relative to the mixture that tasks come from, the family's own part
included, which bounds them; the worst tail's limit is estimated from all tasks by these weights, and not from that part
alone. 3. Beta distributions are tables of 1024 cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from metarl.checks import at_least, in_range
from metarl.task_samplers.coordinates import Coordinates
from metarl.task_samplers.sampler import DrawTasks

_CELLS = 1024
_LOWEST_MEAN = 0.02  # of a Beta distribution; the highest is 1 minus this


@dataclass(frozen=True)
class RoMLConfig:
    """RoML: tasks with the worst scores, by the cross-entropy method."""

    tail: float = 0.05  # fraction of the tasks whose mean score is to improve
    own_share: float = 0.2  # fraction of the tasks that come from the family's own distribution
    update_every: int = 128  # number of scored tasks between two updates of the distribution
    least_elite: float = 0.2  # smallest fraction of the scored tasks to move towards
    step: float = 0.5  # fraction of the way that the distribution moves in an update

    chooses: ClassVar[str] = "parameters"

    def __post_init__(self) -> None:
        in_range(self, 0, 1, "tail", "own_share", "least_elite", open_ends=True)
        in_range(self, 0, 1, "step")
        at_least(self, 2, "update_every")

    def make(self, draw: DrawTasks, device: torch.device) -> RoMLSampler:
        return RoMLSampler(self, draw, device)


class RoMLSampler:
    """The distribution, and the scores since its last update."""

    learns = True

    def __init__(self, config: RoMLConfig, draw: DrawTasks, device: torch.device) -> None:
        self.config = config
        self._draw = draw
        self.coordinates = Coordinates(draw, device)
        num_numbers = len(self.coordinates.names)
        self.mean = torch.full((num_numbers,), 0.5, dtype=torch.float64, device=device)  # [D], p
        self._points = self.mean.new_empty(0, num_numbers)  # [K, D], scored since the last update
        self._scores = self.mean.new_empty(0)  # [K]

    def propose(self, count: int, generator: torch.Generator) -> Any:
        """The first tasks come from the family's own distribution, the others are tilted."""
        num_own = min(count, max(1, round(self.config.own_share * count)))
        uniform = torch.rand(len(self.mean), count, generator=generator, device=self.mean.device, dtype=torch.float64)
        cell = torch.searchsorted(self._density().cumsum(1), uniform).clamp(max=_CELLS - 1)  # [D, count]
        points = (cell.T.double() + 0.5) / _CELLS
        points[:num_own] = uniform[:, :num_own].T
        return self.coordinates.near(points, generator)

    def report(self, tasks: Any, scores: Tensor) -> dict[str, float]:
        self._points = torch.cat([self._points, self.coordinates.of(tasks)])
        self._scores = torch.cat([self._scores, scores.to(self._scores)])
        if len(self._scores) >= self.config.update_every:
            self._update()
        means = zip(self.coordinates.names, self.mean.tolist(), strict=True)
        return self.coordinates.drawn(tasks) | {f"sampler/{name}/tilt": mean for name, mean in means}

    def _update(self) -> None:
        """Move towards the worst tasks, and forget the scores."""
        share, config = self.config.own_share, self.config
        cell = (self._points * _CELLS).long().clamp(max=_CELLS - 1)
        tilted = (self._density() * _CELLS).gather(1, cell.T).prod(0)  # [K], relative to the family's own
        weight = 1 / (share + (1 - share) * tilted)
        elite = worst_tail(self._scores, weight, config.tail)
        least = self._scores.quantile(config.least_elite, interpolation="higher")
        elite = elite | (self._scores <= least)
        target = (weight[elite, None] * self._points[elite]).sum(0) / weight[elite].sum()
        self.mean = (self.mean + config.step * (target - self.mean)).clamp(_LOWEST_MEAN, 1 - _LOWEST_MEAN)
        self._points, self._scores = self._points[:0], self._scores[:0]

    def _density(self) -> Tensor:
        """The probability of each cell of each quantile: [D, cells]."""
        cells = (torch.arange(_CELLS, device=self.mean.device, dtype=torch.float64) + 0.5) / _CELLS
        high, low = 2 * self.mean[:, None], 2 - 2 * self.mean[:, None]
        log_density = (high - 1) * cells.log() + (low - 1) * (1 - cells).log()
        return log_density.softmax(1)

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "scored": [self._points, self._scores]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.mean = state["mean"].to(self.mean)
        self._points, self._scores = (values.to(self.mean) for values in state["scored"])


def worst_tail(scores: Tensor, weight: Tensor, fraction: float) -> Tensor:
    """Which of the scores [K], with these weights, are the lowest that together hold a fraction of the weight: [K]."""
    order = scores.argsort()
    before = weight[order].cumsum(0) - weight[order]
    return torch.empty_like(scores, dtype=torch.bool).scatter_(0, order, before < fraction * weight.sum())
