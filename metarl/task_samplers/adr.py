"""Automatic domain randomisation: ranges that widen where the learner does well at their ends.

OpenAI et al. Solving Rubik's cube with a robot hand (2019).

The training tasks are those inside a box. A part of them has one number at an end of its range; the mean score of such
tasks decides whether this end moves outwards or inwards.

Deviations: 1. ranges are of the quantiles of the family's own distribution, around its median, and end at its limits:
training never leaves it. 2. without given limits, the scores at an end are compared with those in the middle of the
box, so that no unit of returns needs to be known. 3. the first box of a task with many numbers is wider, as a box that
hardly any task of the family is in would be empty.
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

_LEAST_VOLUME = 1 / 64  # of the first box


@dataclass(frozen=True)
class ADRConfig:
    """Automatic domain randomisation: ranges that widen where the learner does well at their ends."""

    first_width: float = 0.2  # first width of each range, as a fraction of the family's tasks
    step: float = 0.02  # how far an end moves, as a fraction of the family's tasks
    end_share: float = 0.5  # fraction of the tasks that have one number at an end of its range
    decide_every: int = 30  # number of scored tasks at an end between two decisions
    widen_above: float | None = None  # mean score at an end above which it moves outwards; None: 1 std below the middle
    narrow_below: float | None = None  # mean score at an end below which it moves inwards; None: 3 std below the middle

    chooses: ClassVar[str] = "parameters"

    def __post_init__(self) -> None:
        in_range(self, 0, 1, "first_width", "step", "end_share", open_ends=True)
        at_least(self, 1, "decide_every")
        if (self.widen_above is None) != (self.narrow_below is None):
            raise ValueError("widen_above and narrow_below must both be given, or both be None")
        if self.widen_above is not None and self.narrow_below is not None and self.narrow_below >= self.widen_above:
            raise ValueError(f"narrow_below is {self.narrow_below}; must be less than widen_above, {self.widen_above}")

    def make(self, draw: DrawTasks, device: torch.device) -> ADRSampler:
        return ADRSampler(self, draw, device)


class ADRSampler:
    """The box, and the scores at its ends since they last moved."""

    learns = True

    def __init__(self, config: ADRConfig, draw: DrawTasks, device: torch.device) -> None:
        self.config = config
        self.coordinates = Coordinates(draw, device)
        size = len(self.coordinates.names)
        self._first = max(config.first_width, _LEAST_VOLUME ** (1 / size))
        half = torch.full((size,), self._first / 2, dtype=torch.float64, device=device)
        self.box = torch.stack([0.5 - half, 0.5 + half])  # [2, D], low and high ends
        self._sum, self._count = torch.zeros_like(self.box), torch.zeros_like(self.box)  # of scores at each end
        self._middle = torch.zeros(3, dtype=torch.float64, device=device)  # count, mean and mean square of the others
        self._ends: Tensor | None = None  # [count] of the tasks proposed last: side * D + number; -1: in the middle

    def propose(self, count: int, generator: torch.Generator) -> Any:
        size, device = self.box.shape[1], self.box.device
        uniform = torch.rand(count, size, generator=generator, device=device, dtype=self.box.dtype)
        points = self.box[0] + (self.box[1] - self.box[0]) * uniform
        end = torch.randint(2 * size, (count,), generator=generator, device=device)
        at_end = torch.rand(count, generator=generator, device=device) < self.config.end_share
        self._ends = torch.where(at_end, end, -1)
        rows = at_end.nonzero()[:, 0]
        points[rows, end[rows] % size] = self.box.flatten()[end[rows]]
        return self.coordinates.near(points, generator)

    def report(self, tasks: Any, scores: Tensor) -> dict[str, float]:
        assert self._ends is not None
        scores = scores.to(self.box)
        at_end = self._ends >= 0
        self._remember_middle(scores[~at_end])
        self._sum.view(-1).index_add_(0, self._ends[at_end], scores[at_end])
        self._count.view(-1).index_add_(0, self._ends[at_end], torch.ones_like(scores[at_end]))
        self._decide()
        widths = zip(self.coordinates.names, (self.box[1] - self.box[0]).tolist(), strict=True)
        return self.coordinates.drawn(tasks) | {f"sampler/{name}/width": width for name, width in widths}

    def _remember_middle(self, scores: Tensor) -> None:
        """A mean over roughly the latest tasks, as the learner improves."""
        if len(scores):
            share = len(scores) / float((self._middle[0] + len(scores)).clamp(max=10.0 * self.config.decide_every))
            latest = torch.stack([scores.mean(), scores.square().mean()])
            self._middle[1:] += min(share, 1.0) * (latest - self._middle[1:])
            self._middle[0] += len(scores)

    def _decide(self) -> None:
        due = self._count >= self.config.decide_every
        if not bool(due.any()):
            return
        widen, narrow = self.config.widen_above, self.config.narrow_below
        if widen is None or narrow is None:
            mean = float(self._middle[1])
            std = float((self._middle[2] - self._middle[1] ** 2).clamp(min=0).sqrt())
            widen, narrow = mean - std, mean - 3 * std
        score = self._sum / self._count.clamp(min=1)
        outwards = (score >= widen).to(score) - (score < narrow).to(score)
        sign = self.box.new_tensor([-1.0, 1.0])[:, None]
        moved = self.box + sign * self.config.step * torch.where(due, outwards, 0.0)
        half = min(self._first, self.config.step) / 2
        self.box = torch.stack([moved[0].clamp(0, 0.5 - half), moved[1].clamp(0.5 + half, 1)])
        self._sum, self._count = (torch.where(due, 0.0, values) for values in (self._sum, self._count))

    def state_dict(self) -> dict[str, Any]:
        return {"box": self.box, "sum": self._sum, "count": self._count, "middle": self._middle}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.box, self._sum, self._count, self._middle = (
            state[name].to(self.box) for name in ("box", "sum", "count", "middle")
        )
