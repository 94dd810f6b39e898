"""Linear probes: what a linear function of a vector can tell, on held-out rows, beside a control that cannot know.

Alain, Bengio. Understanding intermediate layers using linear classifier probes (2016).
Hewitt, Liang. Designing and interpreting probes with control tasks (2019): the control learns shuffled targets.

Numbers are predicted by ridge regression, classes by multinomial logistic regression with an L2 penalty. The penalty is
chosen on the last fifth of the rows that the probe learns from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from metarl.statistics import bootstrap_interval

PENALTIES = (1e-4, 1e-2, 1.0, 100.0)  # per row, of the squared weights of standardised inputs
_STEPS = 60  # of L-BFGS, at most
_MOST_DEVIATIONS = 5.0  # of an input from its mean, beyond which it is cut off: a few tasks shall not decide


@dataclass(frozen=True)
class Estimate:
    """A mean over held-out tasks, and its 95 % interval."""

    mean: float
    ci95: tuple[float, float]

    @classmethod
    def of(cls, scores: Tensor) -> Estimate:
        """The estimate of scores [N]."""
        values = scores.double().numpy()
        return cls(float(values.mean()), bootstrap_interval(values))


@dataclass(frozen=True)
class ProbeScore:
    """How well a probe predicts on held-out rows, and how well one that learned shuffled targets."""

    score: Estimate
    control: Estimate


def probe(x: Tensor, y: Tensor, num_fitted: int, generator: torch.Generator) -> ProbeScore:
    """Learn from the first `num_fitted` rows of x [N, D] what y tells, and predict it for the others.

    y: classes [N] int64, whose score is the accuracy; or numbers [N, O] float64, whose score is the coefficient of
    determination (R2), a mean over the O columns. The control learns from the rows of y in another order.
    """
    x = _standardised(x, num_fitted)
    fitted, held_out = x[:num_fitted], x[num_fitted:]
    order = torch.randperm(num_fitted, generator=generator)
    estimates = []
    for target in (y[:num_fitted], y[:num_fitted][order]):
        predicted = predict(fitted, target, held_out, _penalty(fitted, target))
        estimates.append(Estimate.of(_scores(predicted, y[num_fitted:])))
    return ProbeScore(*estimates)


def predict(x: Tensor, y: Tensor, at: Tensor, penalty: float) -> Tensor:
    """Predictions for rows `at` [M, D], learned from x [N, D] and y: classes [M], or numbers [M, O]."""
    if y.dtype == torch.int64:
        return logits(x, y, at, penalty).argmax(-1)
    return ridge(x, y, at, penalty)


def ridge(x: Tensor, y: Tensor, at: Tensor, penalty: float) -> Tensor:
    """Ridge regression of y [N, O] on x [N, D], whose intercept is not penalised, at new rows [M, D]: [M, O]."""
    x_mean, y_mean = x.mean(0), y.mean(0)
    centred = x - x_mean
    eye = torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(centred.T @ centred + penalty * len(x) * eye, centred.T @ (y - y_mean))
    return (at - x_mean) @ weight + y_mean


def logits(x: Tensor, y: Tensor, at: Tensor, penalty: float) -> Tensor:
    """Multinomial logistic regression of classes y [N] on x [N, D], by L-BFGS, at new rows [M, D]: [M, C]."""
    classes = int(y.max()) + 1
    weight = torch.zeros(x.shape[1], classes, dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = cross_entropy(x @ weight + bias, y) + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)  # pyright: ignore[reportArgumentType], returns a tensor, as L-BFGS needs it
    with torch.no_grad():
        return at @ weight + bias


def principal_components(x: Tensor, num_components: int) -> tuple[Tensor, Tensor]:
    """The mean [D] and the first principal directions [D, num_components] of rows x [N, D]."""
    mean = x.mean(0)
    directions = torch.linalg.svd(x - mean, full_matrices=False).Vh[:num_components].T
    return mean, directions


def _standardised(x: Tensor, num_fitted: int) -> Tensor:
    """Rows with mean zero and deviation one in the first `num_fitted`, in as few columns as these span.

    Columns that do not vary are left out, and values far from their mean are cut off. A rotation onto the span of the
    fitted rows changes no ridge or logistic regression with an L2 penalty.
    """
    mean, std = x[:num_fitted].mean(0), x[:num_fitted].std(0, correction=0)
    varies = std > 1e-9 * (1 + mean.abs())
    x = ((x[:, varies] - mean[varies]) / std[varies]).clamp(-_MOST_DEVIATIONS, _MOST_DEVIATIONS)
    if x.shape[1] > num_fitted:
        _, directions = principal_components(x[:num_fitted], num_fitted)
        x = x @ directions
    return x


def _penalty(x: Tensor, y: Tensor) -> float:
    """The penalty that predicts the last fifth of the rows best from the others."""
    split = len(x) - max(1, len(x) // 5)
    scores = {p: float(_scores(predict(x[:split], y[:split], x[split:], p), y[split:]).mean()) for p in PENALTIES}
    return max(scores, key=lambda penalty: scores[penalty])


def _scores(predicted: Tensor, y: Tensor) -> Tensor:
    """The score of each row, whose mean is the accuracy, or R2: [M]."""
    if y.dtype == torch.int64:
        return (predicted == y).double()
    return determination(predicted, y)


def determination(predicted: Tensor, y: Tensor) -> Tensor:
    """One minus the squared error of each row over the variance, a mean over columns [M, O] that vary: [M]."""
    variance = y.var(0, correction=0)
    varies = variance > 0
    return (1 - (predicted - y)[:, varies].square() / variance[varies]).mean(1)
