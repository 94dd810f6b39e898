"""Tasks as points of the unit cube, so that samplers need to know nothing of a family.

A coordinate is the quantile of one number of a task under the family's own distribution: in these coordinates the
family's tasks are uniform along every axis, whatever the unit or the shape of the range. A point becomes a task by
choosing the nearest among many that the family itself draws, so no sampler ever leaves the training distribution.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from metarl.records import Record
from metarl.task_samplers.sampler import DrawTasks

NUM_CANDIDATES = 4096  # tasks of the family among which the nearest to a point is chosen
_MOST_NUMBERS = 8  # of a task that is to be near a point: in more dimensions, no candidate is
_NUM_LOGGED = 8  # numbers of a task whose draws are logged
_REFERENCE_SEED = 0


class Coordinates:
    """The coordinates [N, D] of tasks: those of their numbers that differ between tasks of the family.

    of_points: whether tasks near points of the cube are needed.

    Raises:
        ValueError: when no number of the tasks differs, or so many do that no task is near a point.
    """

    def __init__(self, draw: DrawTasks, device: torch.device, *, of_points: bool = True) -> None:
        self._draw = draw
        reference = draw(NUM_CANDIDATES, torch.Generator(device).manual_seed(_REFERENCE_SEED))
        names, values = numbers(reference)
        differs = (values != values[:1]).any(0)
        count = int(differs.sum())
        if not count or (of_points and count > _MOST_NUMBERS):
            needs = f"needs 1 to {_MOST_NUMBERS} (plr has no such limit)" if count else "needs at least 1"
            raise ValueError(f"tasks of this family have {count} numbers that differ; this sampler {needs}")
        self._kept = differs.nonzero()[:, 0]
        self.names = tuple(names[index] for index in self._kept.tolist())
        self._sorted = values[:, self._kept].T.contiguous().sort(1).values  # [D, M]

    def of(self, tasks: Any) -> Tensor:
        """The coordinates of tasks: [N, D] float64 in [0, 1]; of equal numbers, the middle of their quantiles."""
        values = self.values(tasks).T.contiguous()
        below, upto = (torch.searchsorted(self._sorted, values, right=right) for right in (False, True))
        return (below + upto).T.double() / (2 * self._sorted.shape[1])

    def values(self, tasks: Any) -> Tensor:
        """The numbers of tasks that differ, in their own units: [N, D] float64."""
        return numbers(tasks)[1][:, self._kept]

    def near(self, points: Tensor, generator: torch.Generator) -> Any:
        """Tasks of the family near points [N, D] of the unit cube."""
        candidates = self._draw(NUM_CANDIDATES, generator)
        return candidates[torch.cdist(points, self.of(candidates)).argmin(1)]

    def drawn(self, tasks: Any) -> dict[str, float]:
        """What is logged of proposed tasks: the spread of each of their first numbers."""
        values = self.values(tasks)[:, :_NUM_LOGGED]
        low, middle, high = values.quantile(values.new_tensor([0.1, 0.5, 0.9]), dim=0).tolist()
        logged: dict[str, float] = {}
        for index, name in enumerate(self.names[:_NUM_LOGGED]):
            logged |= {f"sampler/{name}/p10": low[index], f"sampler/{name}/p50": middle[index]}
            logged[f"sampler/{name}/p90"] = high[index]
        return logged


def nearest_distinct(wanted: Any, known: Any) -> Tensor:
    """Which of the known tasks are nearest to the wanted ones, each in turn, all different: [N]."""
    values = numbers(known)[1]
    scale = values.std(0).clamp(min=1e-9)
    distance = torch.cdist(numbers(wanted)[1] / scale, values / scale)
    chosen: list[int] = []
    for row in distance:
        row[chosen] = torch.inf
        chosen.append(int(row.argmin()))
    return torch.tensor(chosen, device=values.device)


def numbers(tasks: Any) -> tuple[list[str], Tensor]:
    """All numbers of tasks, and their names: goal.0, goal.1, ...; [N, all] float64."""
    columns = [(name, value.reshape(len(value), -1).double()) for name, value in _tensors(vars(tasks), "")]
    names = [
        name if values.shape[1] == 1 else f"{name}.{index}"
        for name, values in columns
        for index in range(values.shape[1])
    ]
    return names, torch.cat([values for _, values in columns], 1)


def _tensors(fields: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in fields.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Record):
            yield from _tensors(vars(value), f"{prefix}{name}.")
        elif isinstance(value, Mapping):
            yield from _tensors(value, f"{prefix}{name}.")
