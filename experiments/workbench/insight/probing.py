"""Probing a run: how well its learner's state tells each parameter of the task, by point of adaptation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from experiments.workbench.insight.known import Known
from experiments.workbench.insight.probes import Estimate, determination, probe
from experiments.workbench.insight.states import TaskStates
from metarl.errors import UserError

MOST_CLASSES = 20  # values of a number that are told apart one by one; a number with more of them is predicted
_COLUMNS = ("score", "probe", "95 % interval", "shuffled", "chance", "could be known")
_LEAST_HELD_OUT = 10  # tasks


@dataclass(frozen=True)
class ProbePoint:
    """What the state after a point of adaptation tells of one parameter."""

    point: int  # points of adaptation before it
    score: Estimate
    control: Estimate  # of a probe that learned from shuffled tasks
    known: Estimate | None  # the best that anybody could do with the same data; None: not known


@dataclass(frozen=True)
class ParameterProbe:
    """What the states tell of one parameter."""

    parameter: str
    measure: Literal["accuracy", "R2"]
    size: int  # classes of the parameter, or numbers in it
    chance: float  # the score of who knows nothing but how often each value occurs
    points: list[ProbePoint]


@dataclass(frozen=True)
class Probing:
    """The probes of all parameters."""

    point: str  # unit of the points
    num_fitted: int  # tasks that each probe learned from
    num_held_out: int  # tasks that it was tested on
    state_size: int
    probes: list[ParameterProbe]
    attention: list[list[float]] | None = None  # mean weights of past steps, as each episode begins and after the last

    @property
    def columns(self) -> list[str]:
        """The heads of the columns of `rows`."""
        return ["parameter", self.point, *_COLUMNS]

    @property
    def rows(self) -> list[list[str]]:
        """A row for each parameter and point."""
        return [_row(probed, at) for probed in self.probes for at in probed.points]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def _row(probed: ParameterProbe, at: ProbePoint) -> list[str]:
    kind = "value" if probed.measure == "accuracy" else "number"
    return [
        f"{probed.parameter} ({probed.size} {kind}{'' if probed.size == 1 else 's'})",
        "before" if at.point == 0 else str(at.point),
        probed.measure,
        f"{at.score.mean:.3f}",
        f"{at.score.ci95[0]:.3f} to {at.score.ci95[1]:.3f}",
        f"{at.control.mean:.3f}",
        f"{probed.chance:.3f}",
        "" if at.known is None else f"{at.known.mean:.3f}",
    ]


def probe_states(states: TaskStates, points: list[int], seed: int) -> Probing:
    """Probe the states after these points for every parameter that differs between tasks.

    Raises:
        UserError: when there are too few tasks, or no parameter differs between them.
    """
    num_tasks = states.vectors.shape[1]
    num_fitted = num_tasks // 2
    if num_tasks - num_fitted < _LEAST_HELD_OUT:
        raise UserError(f"--tasks is {num_tasks}; must be at least {2 * _LEAST_HELD_OUT}: half of them are held out")
    generator = torch.Generator().manual_seed(seed)
    probes = []
    for name, values in states.parameters.items():
        target = target_of(values)
        if target is None:
            continue
        known = states.known.get(name)
        of_points = []
        for point in points:
            found = probe(states.vectors[point], target, num_fitted, generator)
            best = None if known is None else _best(known, point, target, num_fitted)
            of_points.append(ProbePoint(point, found.score, found.control, best))
        is_class = target.dtype == torch.int64
        size = int(target.max()) + 1 if is_class else target.shape[1]
        probes.append(
            ParameterProbe(name, "accuracy" if is_class else "R2", size, _chance(target, num_fitted), of_points)
        )
    if not probes:
        raise UserError("there is nothing to probe for: no parameter differs between the tasks")
    return Probing(states.point, num_fitted, num_tasks - num_fitted, states.vectors.shape[-1], probes, states.attention)


def target_of(values: Tensor) -> Tensor | None:
    """A parameter [N, ...] as a probe's target: classes [N], or numbers [N, O] that vary; None where nothing does."""
    flat = values.reshape(len(values), -1)
    if flat.shape[1] == 1:
        distinct, classes = flat[:, 0].unique(return_inverse=True)
        is_whole = not values.is_floating_point() and len(distinct) <= len(values) // 10
        if 1 < len(distinct) <= MOST_CLASSES or (is_whole and len(distinct) > 1):
            return classes
    numbers = flat.double()
    varying = numbers[:, numbers.std(0, correction=0) > 0]
    return varying if varying.shape[1] else None


def _chance(target: Tensor, num_fitted: int) -> float:
    """The accuracy of always naming the commonest class; zero for R2, which predicting the mean has."""
    if target.dtype != torch.int64:
        return 0.0
    commonest = target[:num_fitted].bincount().argmax()
    return float((target[num_fitted:] == commonest).double().mean())


def _best(known: Known, point: int, target: Tensor, num_fitted: int) -> Estimate:
    """The score of the exact posterior's best guess on the held-out tasks."""
    if known.chances is not None:
        return Estimate.of(known.right()[point, num_fitted:])
    assert known.mean is not None
    guess = known.mean[point].reshape(len(target), -1).double()
    return Estimate.of(determination(guess[num_fitted:], target[num_fitted:]))
