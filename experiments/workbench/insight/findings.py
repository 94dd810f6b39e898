"""What a diagnosis finds: a verdict in one line and the evidence under it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from metarl.evaluation import Measure, finite_or_none
from metarl.statistics import bootstrap_interval, ratio_interval

_ROUNDING = 1e-12
Level = Literal["fine", "warning", "unknown"]


@dataclass(frozen=True)
class Evidence:
    """A table of numbers and words."""

    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Finding:
    """The verdict of one detector."""

    detector: str
    level: Level
    verdict: str  # one line
    evidence: list[Evidence] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)  # numbers that the verdict rests on, by name
    matrix: list[list[float | None]] | None = None  # scores of tasks in pairs, [tasks][tasks]; None: no pairs

    def as_json(self) -> dict[str, Any]:
        """The finding with finite numbers only."""
        numbers = {name: value for name, value in self.numbers.items() if math.isfinite(value)}
        return finite_or_none(asdict(replace(self, numbers=numbers)))


@dataclass(frozen=True)
class Difference:
    """How much better one score is than another in the same tasks, with its 95 % interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, better: Tensor, worse: Tensor, measure: Measure) -> Difference:
        """The difference of scores [N]; positive where the first are better, also where lower is better."""
        values = (better - worse).double().cpu().numpy() * (1 if measure.higher_is_better else -1)
        return cls(float(values.mean()), *bootstrap_interval(values))

    def __str__(self) -> str:
        return f"{text(self.mean)} ({text(self.low)} to {text(self.high)})"


@dataclass(frozen=True)
class Share:
    """How much of one difference between scores in the same tasks another one makes up, with its 95 % interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, part: Tensor, whole: Tensor) -> Share:
        """The sum of differences [N] over that of others [N]."""
        parts, wholes = (values.double().cpu().numpy() for values in (part, whole))
        return cls(float(parts.sum() / wholes.sum()), *ratio_interval(parts, wholes))

    def level(self, least: float) -> Level:
        """Fine where it surely is at least so much, a warning where it surely is less, else unknown."""
        if self.low >= least:
            return "fine"
        return "warning" if self.high < least else "unknown"

    def __str__(self) -> str:
        return f"{100 * self.mean:.0f} % ({100 * self.low:.0f} to {100 * self.high:.0f} %)"


def text(value: float) -> str:
    """A number with three digits; what only rounding tells from zero is zero."""
    return f"{0.0 if abs(value) < _ROUNDING else value:.3g}"


def score_row(name: str, scores: Tensor) -> list[str]:
    """A row of evidence: a name, the mean of scores [N] and its interval."""
    values = scores.double().cpu().numpy()
    low, high = bootstrap_interval(values)
    return [name, text(float(values.mean())), f"{text(low)} to {text(high)}"]


def shifted(num_tasks: int) -> Tensor:
    """For each task the number of the next one, and for the last that of the first: [N]."""
    return torch.arange(num_tasks).roll(-1)
