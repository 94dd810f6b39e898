"""The prediction problem of few-shot tasks, regression or classification: its loss, score and further metrics.

Guo et al. On calibration of modern neural networks (2017), for the expected calibration error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from metarl.adaptation.perceptron import Criterion
from metarl.evaluation import Measure
from metarl.records import Examples, Record
from metarl.rl.losses import mean_over_examples

ERROR = Measure("mse", "step", 0, higher_is_better=False)
ACCURACY = Measure("accuracy", "step", 0)
_BINS = 15  # number of confidence bins in the calibration error


@dataclass(frozen=True)
class Outcome(Record):
    """The quality of predictions at each of P points of an adaptation curve."""

    score: Tensor  # [P, N]
    nll: Tensor | None = None  # [P, N], mean negative log-likelihood of the queries' classes, in nats
    confidence: Tensor | None = None  # [P, bins, 3], number of queries, summed confidence, number correct


class SquaredErrors:
    """The mean squared error of each example over its outputs, with its gradient."""

    def __call__(self, prediction: Tensor, y: Tensor) -> Tensor:
        """Errors [..., Q] of predictions [..., Q, out]."""
        return (prediction - y).square().mean(-1)

    def slope(self, prediction: Tensor, y: Tensor) -> Tensor:
        """The gradient [..., Q, out] of each error with respect to its prediction."""
        return (prediction - y) * (2 / prediction.shape[-1])


class CrossEntropies:
    """The negative log-likelihood of each example's class, in nats, with its gradient."""

    def __call__(self, prediction: Tensor, y: Tensor) -> Tensor:
        """Losses [..., Q] of logits [..., Q, W] for classes y [..., Q]."""
        return nn.functional.cross_entropy(prediction.flatten(0, -2), y.flatten(), reduction="none").view(y.shape)

    def slope(self, prediction: Tensor, y: Tensor) -> Tensor:
        """The gradient [..., Q, W] of each loss with respect to its logits."""
        return prediction.softmax(-1) - nn.functional.one_hot(y, prediction.shape[-1])


squared_errors, cross_entropies = SquaredErrors(), CrossEntropies()


class Problem(Protocol):
    """The problem of a few-shot family, as learners see it."""

    @property
    def input_shape(self) -> tuple[int, ...]: ...  # shape of one example

    @property
    def output_size(self) -> int: ...  # size of the prediction for one example

    @property
    def measure(self) -> Measure: ...  # measure of `score`

    @property
    def losses(self) -> Criterion:
        """The losses [..., Q] of predictions [..., Q, output_size], called with them and y."""
        ...

    def score(self, prediction: Tensor, data: Examples) -> Tensor:
        """The score [...] over each task's queries."""
        ...

    def outcome(self, predictions: Tensor, query: Examples) -> Outcome:
        """The outcome of predictions [P, N, Q, output_size] along an adaptation curve."""
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
    losses = squared_errors

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.input_size,)

    def score(self, prediction: Tensor, data: Examples) -> Tensor:
        return mean_over_examples(squared_errors(prediction, data.y), data.valid)

    def outcome(self, predictions: Tensor, query: Examples) -> Outcome:
        return Outcome(self.score(predictions, query))

    def metrics(self, outcomes: Sequence[Outcome]) -> dict[str, list[float]]:
        return {}


@dataclass(frozen=True)
class Classification:
    """Classification of images into `ways` classes, numbered differently in every task; predictions are logits.

    The score is the accuracy on the queries.
    """

    image_shape: tuple[int, int, int]  # channels, height, width
    ways: int

    measure = ACCURACY
    losses = cross_entropies

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.image_shape

    @property
    def output_size(self) -> int:
        return self.ways

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


def calibration_error(confidence: Tensor) -> Tensor:
    """The expected calibration error: confidence [P, bins, 3], as in `Outcome`, -> [P]."""
    count, stated, right = confidence.unbind(-1)
    return (stated - right).abs().sum(-1) / count.sum(-1)


def _is_right(prediction: Tensor, y: Tensor) -> Tensor:
    """One where the most probable class is right, else zero; in a tie of k classes with the right one, 1 / k: [..., Q].

    A learner with equal logits for all classes is thus at chance level, whatever the first class. NaN counts as wrong.
    """
    best = prediction == prediction.amax(-1, keepdim=True)
    y = y.expand(prediction.shape[:-1])
    return best.gather(-1, y.unsqueeze(-1)).squeeze(-1) / best.sum(-1).clamp(min=1)


def _confidence(predictions: Tensor, y: Tensor, valid: Tensor | None) -> Tensor:
    """Counts, summed confidence and number correct by confidence bin: [P, bins, 3]."""
    stated = predictions.softmax(-1).amax(-1).double().nan_to_num()  # [P, N, Q]
    each = torch.stack([torch.ones_like(stated), stated, _is_right(predictions, y).double()], -1)
    if valid is not None:
        each = each * valid.unsqueeze(-1)
    bins = (stated * _BINS).long().clamp(max=_BINS - 1).flatten(1)  # [P, N * Q]
    sums = each.new_zeros(len(each), _BINS, 3)
    return sums.scatter_add_(1, bins.unsqueeze(-1).expand(-1, -1, 3), each.flatten(1, 2))
