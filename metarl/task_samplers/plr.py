"""Prioritised level replay: training tasks from which much can be learned are met again.

Jiang, Grefenstette, Rocktaeschel. Prioritized level replay (2021), PLR.
Jiang et al. Replay-guided adversarial environment design (2021), robust PLR.
Parker-Holder et al. Evolving curricula with regret-based environment design (2022), ACCEL.
Numbers as in https://github.com/DramaCow/jaxued, except for the buffer's size, which is for runs of fewer tasks.

A buffer holds tasks and their scores. A batch is either of new tasks or of some from the buffer, drawn by the rank of
what may be learned from them, and by how long ago they were met. Robust PLR does not learn from new tasks; it only
scores them. After a batch from the buffer, ACCEL also scores edits of its tasks: neighbours in all their numbers.

Deviations: 1. what may be learned from a task is the best score seen in it, or in the tasks nearest to it, minus its
last one. The papers' estimates need a value function of the state, but within a trial values depend on what was seen
before, and not every learner has a critic. 2. a new task replaces the one that is least likely to be met again. 3. a
task that is drawn once more, as in families with few tasks, is no new entry. 4. the batch's tasks that are drawn by
rank are all different, as a batch of one task would teach little else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metarl.checks import at_least, in_range, positive
from metarl.records import Record
from metarl.task_samplers.coordinates import Coordinates, numbers
from metarl.task_samplers.sampler import DrawTasks

_NUM_NEAREST = 8  # tasks of the buffer, the task itself among them, whose best score counts as within reach


@dataclass(frozen=True)
class PLRConfig:
    """Prioritised level replay: tasks from which much can be learned are met again."""

    robust: bool = False  # whether new tasks are only scored, and not learned from
    capacity: int = 1000  # number of tasks in the buffer
    first_tasks: int = 250  # number of new tasks to score before any is met again
    replay_share: float = 0.8  # fraction of the batches that come from the buffer
    temperature: float = 0.3  # temperature of the ranks; near 0: always the first
    stale_share: float = 0.3  # fraction of the replayed tasks that are drawn by how long ago they were met

    chooses: ClassVar[str] = "parameters"

    def __post_init__(self) -> None:
        at_least(self, 2, "capacity")
        at_least(self, 1, "first_tasks")
        in_range(self, 0, 1, "replay_share", "stale_share")
        positive(self, "temperature")
        if self.robust and not self.replay_share:
            raise ValueError("replay_share is 0; must be greater with robust, or nothing is learned from")

    def make(self, draw: DrawTasks, device: torch.device) -> PLRSampler:
        return PLRSampler(self, draw, device)


@dataclass(frozen=True)
class ACCELConfig(PLRConfig):
    """ACCEL: robust prioritised level replay, with edits of the tasks that are met again."""

    robust: bool = True  # whether new tasks are only scored, and not learned from
    edit_std: float = 0.05  # standard deviation of an edit, in quantiles of each number of a task

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "edit_std")

    def make(self, draw: DrawTasks, device: torch.device) -> PLRSampler:
        return PLRSampler(self, draw, device, edit_std=self.edit_std)


class PLRSampler:
    """The buffer, and what the tasks proposed last are.

    edit_std: of the edits that follow every batch from the buffer; None: no edits.
    """

    def __init__(
        self, config: PLRConfig, draw: DrawTasks, device: torch.device, *, edit_std: float | None = None
    ) -> None:
        self.config, self._edit_std = config, edit_std
        self._draw = draw
        self.coordinates = Coordinates(draw, device, of_points=edit_std is not None)
        example, capacity = draw(1, torch.Generator(device).manual_seed(0)), config.capacity
        self._tasks = example.map(lambda value: value.new_zeros(capacity, *value.shape[1:]))
        self._numbers = numbers(self._tasks)[1]  # [capacity, all], by which equal tasks are found
        empty = torch.zeros(capacity, dtype=torch.float64, device=device)
        self._points = empty.new_zeros(capacity, len(self.coordinates.names))  # [capacity, D]
        self._last, self._best, self._met = empty, empty.clone(), empty.clone()  # [capacity] scores; number of a batch
        self.size = 0  # tasks in the buffer
        self._num_new = 0  # new tasks scored so far
        self._batch = 0  # batches scored so far
        self._replayed: Tensor | None = None  # places of the tasks proposed last; None: they are new or edits
        self._to_edit: Tensor | None = None  # places of the tasks whose edits are due
        self.learns = True

    def propose(self, count: int, generator: torch.Generator) -> Any:
        if self._to_edit is not None:
            self.learns, self._replayed = False, None
            parents = self._points[self._to_edit]
            noise = torch.randn(parents.shape, generator=generator, device=parents.device, dtype=parents.dtype)
            self._to_edit = None
            return self.coordinates.near((parents + (self._edit_std or 0.0) * noise).clamp(0, 1), generator)
        chance = float(torch.rand((), generator=generator, device=generator.device))
        if self._num_new < self.config.first_tasks or chance >= self.config.replay_share:
            self.learns, self._replayed = not self.config.robust, None
            return self._draw(count, generator)
        self.learns, self._replayed = True, self._places_to_replay(count, generator)
        self._to_edit = None if self._edit_std is None else self._replayed
        return self._tasks[self._replayed]

    def report(self, tasks: Any, scores: Tensor) -> dict[str, float]:
        self._batch += 1
        scores = scores.to(self._last)
        is_new = self._replayed is None
        places = self._placed(tasks) if self._replayed is None else self._replayed
        self._last[places] = scores
        self._best.scatter_reduce_(0, places, scores, "amax")
        self._met[places] = float(self._batch)
        return {**self.coordinates.drawn(tasks), "sampler/new_tasks": float(is_new), "sampler/buffer": float(self.size)}

    def _placed(self, tasks: Record) -> Tensor:
        """The places [N] in the buffer of tasks that enter it, or were there before."""
        self._num_new += len(tasks)
        points, values = self.coordinates.of(tasks), numbers(tasks)[1]
        replaceable = self.probabilities()[0].argsort().tolist() if self.size else range(self.config.capacity)
        places: list[int] = []
        for index, point in enumerate(points):
            same = (self._numbers[: self.size] == values[index]).all(1).nonzero()[:1, 0].tolist()
            if same:
                places += same
                continue
            if self.size < self.config.capacity:
                place, self.size = self.size, self.size + 1
            else:
                place = replaceable[len(places) % len(replaceable)]
            for old, new in zip(pytree.tree_leaves(self._tasks), pytree.tree_leaves(tasks), strict=True):
                old[place] = new[index]
            self._points[place], self._numbers[place], self._best[place] = point, values[index], -torch.inf
            places.append(place)
        return torch.tensor(places, device=points.device)

    def _places_to_replay(self, count: int, generator: torch.Generator) -> Tensor:
        """Places [count] of the buffer: some by how long ago their tasks were met, the others by rank."""
        ranked, stale = self.probabilities()
        chance = torch.rand(count, generator=generator, device=ranked.device)
        num_stale = int((chance < self.config.stale_share).sum())
        by_age = stale.multinomial(num_stale, replacement=True, generator=generator) if num_stale else stale[:0].long()
        num_ranked = count - num_stale
        if num_ranked > self.size:  # a family with few tasks
            by_rank = ranked.multinomial(num_ranked, replacement=True, generator=generator)
        else:
            uniform = torch.rand(self.size, generator=generator, device=ranked.device, dtype=ranked.dtype)
            gumbel = -(-uniform.clamp(min=1e-300).log()).log()  # the largest sums are a sample without replacement
            by_rank = (ranked.log() + gumbel).topk(num_ranked).indices
        return torch.cat([by_age, by_rank])

    def probabilities(self) -> tuple[Tensor, Tensor]:
        """The probabilities of the tasks of the buffer, [size] each: by rank, and by how long ago they were met."""
        points, best = self._points[: self.size], self._best[: self.size]
        nearest = torch.cdist(points, points).topk(min(_NUM_NEAREST, self.size), largest=False).indices
        regret = best[nearest].amax(1) - self._last[: self.size]
        age = self._batch + 1 - self._met[: self.size]
        return rank_weights(regret, self.config.temperature), age / age.sum()

    def state_dict(self) -> dict[str, Any]:
        return {
            "tasks": pytree.tree_leaves(self._tasks),
            "points": self._points,
            "scores": {"last": self._last, "best": self._best, "met": self._met},
            "counts": {"size": self.size, "num_new": self._num_new, "batch": self._batch},
            "to_edit": self._to_edit,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for own, saved in zip(pytree.tree_leaves(self._tasks), state["tasks"], strict=True):
            own.copy_(saved)
        self._numbers = numbers(self._tasks)[1]
        self._points.copy_(state["points"])
        for own, name in ((self._last, "last"), (self._best, "best"), (self._met, "met")):
            own.copy_(state["scores"][name])
        counts = state["counts"]
        self.size, self._num_new, self._batch = counts["size"], counts["num_new"], counts["batch"]
        self._to_edit = None if state["to_edit"] is None else state["to_edit"].to(self._points.device)


def rank_weights(values: Tensor, temperature: float) -> Tensor:
    """Weights [K] that sum to one and fall with the rank of a value, the highest first: rank^(-1 / temperature)."""
    rank = values.argsort(descending=True, stable=True).argsort() + 1
    return (-rank.to(values).log() / temperature).softmax(0)
