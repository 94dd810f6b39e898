"""What a few-shot task asks for: numbers, or one of several classes; the loss, the score, and what is worth knowing.

Guo et al. On calibration of modern neural networks (2017), for the expected calibration error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from metarl.evaluation import Measure
from metarl.records import Examples, Record
from metarl.rl.losses import mean_over_examples

ERROR = Measure("mse", "step", 0, higher_is_better=False)
ACCURACY = Measure("accuracy", "step", 0)
_BINS = 15  # of confidence, in the calibration error


@dataclass(frozen=True)
class Outcome(Record):
    """How good predictions were, by point P of an adaptation curve."""

    score: Tensor  # [P, N]
    nll: Tensor | None = None  # [P, N] nats, the mean negative log-likelihood of the queries' classes
    confidence: Tensor | None = None  # [P, bins, 3] number of queries, summed confidence and number of right ones


class Problem(Protocol):
    """What learners of few-shot tasks need to know of a family."""

    @property
    def input_shape(self) -> tuple[int, ...]: ...  # of one example, without its axes of tasks and examples

    @property
    def output_size(self) -> int: ...  # of a prediction for one example

    @property
    def measure(self) -> Measure: ...  # what `score` is

    def losses(self, prediction: Tensor, y: Tensor) -> Tensor:
        """What to minimise: [..., Q], for predictions [..., Q, output_size]."""
        ...

    def score(self, prediction: Tensor, data: Examples) -> Tensor:
        """What to report, over each task's queries: [...]."""
        ...

    def outcome(self, predictions: Tensor, query: Examples) -> Outcome:
        """Of predictions [P, N, Q, output_size] along an adaptation curve."""
        ...

    def metrics(self, outcomes: Sequence[Outcome]) -> dict[str, list[float]]:
        """What there is to know of several batches of tasks beside their scores, by name and point."""
        ...


@dataclass(frozen=True)
class Regression:
    """Vectors of numbers; the score is the mean squared error."""

    input_size: int
    output_size: int

    measure = ERROR

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.input_size,)

    def losses(self, prediction: Tensor, y: Tensor) -> Tensor:
        return squared_errors(prediction, y)

    def score(self, prediction: Tensor, data: Examples) -> Tensor:
        return mean_over_examples(squared_errors(prediction, data.y), data.valid)

    def outcome(self, predictions: Tensor, query: Examples) -> Outcome:
        return Outcome(self.score(predictions, query))

    def metrics(self, outcomes: Sequence[Outcome]) -> dict[str, list[float]]:
        return {}


@dataclass(frozen=True)
class Classification:
    """One of `ways` classes of images, whose numbers mean something else in every task; predictions are logits.

    The score is the share of queries whose most probable class is the right one.
    """

    image_shape: tuple[int, int, int]  # channels, height, width
    ways: int

    measure = ACCURACY

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.image_shape

    @property
    def output_size(self) -> int:
        return self.ways

    def losses(self, prediction: Tensor, y: Tensor) -> Tensor:
        return cross_entropies(prediction, y)

    def score(self, prediction: Tensor, data: Examples) -> Tensor:
        return mean_over_examples(_is_right(prediction, data.y), data.valid)

    def outcome(self, predictions: Tensor, query: Examples) -> Outcome:
        y = query.y.expand(predictions.shape[:-1])
        nll = mean_over_examples(cross_entropies(predictions, y), query.valid)
        return Outcome(self.score(predictions, query), nll, _confidence(predictions, y, query.valid))

    def metrics(self, outcomes: Sequence[Outcome]) -> dict[str, list[float]]:
        """The share of right queries; their negative log-likelihood ("nll"); the expected calibration error ("ece")."""
        nll = torch.cat([outcome.nll for outcome in outcomes if outcome.nll is not None], 1)
        confidence = sum(outcome.confidence for outcome in outcomes if outcome.confidence is not None)
        assert isinstance(confidence, Tensor)
        return {"nll": nll.mean(1).tolist(), "ece": calibration_error(confidence).tolist()}


def squared_errors(prediction: Tensor, y: Tensor) -> Tensor:
    """The mean squared error of each example over its outputs: [..., Q, out] -> [..., Q]."""
    return (prediction - y).square().mean(-1)


def cross_entropies(prediction: Tensor, y: Tensor) -> Tensor:
    """The negative log-likelihood of each example's class, in nats: logits [..., Q, W], y [..., Q] -> [..., Q]."""
    return nn.functional.cross_entropy(prediction.flatten(0, -2), y.flatten(), reduction="none").view(y.shape)


def calibration_error(confidence: Tensor) -> Tensor:
    """How far confidence is from the share of right ones, on average: [P, bins, 3], as in `Outcome`, -> [P]."""
    count, stated, right = confidence.unbind(-1)
    return (stated - right).abs().sum(-1) / count.sum(-1)


def _is_right(prediction: Tensor, y: Tensor) -> Tensor:
    """One where the most probable class is the right one, else zero; where several are, the share of one: [..., Q].

    So that a learner that says the same of all classes is at chance, and not at what the first class is worth. What is
    not a number is wrong.
    """
    best = prediction == prediction.amax(-1, keepdim=True)
    y = y.expand(prediction.shape[:-1])
    return best.gather(-1, y.unsqueeze(-1)).squeeze(-1) / best.sum(-1).clamp(min=1)


def _confidence(predictions: Tensor, y: Tensor, valid: Tensor | None) -> Tensor:
    """What was stated and what was right, by confidence: [P, bins, 3]."""
    stated = predictions.softmax(-1).amax(-1).double().nan_to_num()  # [P, N, Q]
    each = torch.stack([torch.ones_like(stated), stated, _is_right(predictions, y).double()], -1)
    if valid is not None:
        each = each * valid.unsqueeze(-1)
    bins = (stated * _BINS).long().clamp(max=_BINS - 1).flatten(1)  # [P, N * Q]
    sums = each.new_zeros(len(each), _BINS, 3)
    return sums.scatter_add_(1, bins.unsqueeze(-1).expand(-1, -1, 3), each.flatten(1, 2))
