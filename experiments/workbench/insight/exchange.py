"""Scores in one task of a learner that has adapted to another: what adaptation is worth, and to whom."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from envs.rows import close
from experiments.workbench.insight.states import check_shows_state
from experiments.workbench.insight.watching import Watched
from metarl.errors import UserError
from metarl.evaluation import Measure, TrialScores
from metarl.fewshot.episode import FewShotEpisode, FewShotFamily
from metarl.fewshot.problem import Classification
from metarl.protocols import Split, TaskFamily
from metarl.records import Record, cat
from metarl.rl.rollouts import collect, rows_per_task
from metarl.trainer import Trainer

_PAIRS_AT_ONCE = 500  # of adapted and scored tasks


class Exchange(Protocol):
    """Tasks to which a learner has adapted, one by one."""

    @property
    def measure(self) -> Measure: ...

    @property
    def num_tasks(self) -> int: ...

    @property
    def tasks(self) -> Record | None: ...  # None: they have no parameters

    def scores(self, adapted: Tensor | None, scored: Tensor) -> Tensor:
        """The scores [M] in the tasks `scored` [M], each after adapting to the one in `adapted` [M].

        None: before any data.
        """
        ...

    @property
    def floor(self) -> Tensor | None:
        """The score [N] in each task of somebody who knows nothing; None: not known."""
        ...

    @property
    def adapts_while_scored(self) -> bool: ...  # as memories do, so a score before any data is not one without any


def exchange_of(trainer: Trainer, split: Split, num_tasks: int, seed: int) -> Exchange:
    """A learner adapted to fresh tasks of a split; all randomness comes from the seed.

    Raises:
        UserError: when the learner cannot say what it knows of each task, or adapts to nothing.
        ValueError: when the family does not declare the split.
    """
    generator = torch.Generator(trainer.device).manual_seed(seed)
    if isinstance(trainer.family, FewShotFamily):
        return LearnerExchange.of(trainer, split, num_tasks, generator)
    return AgentExchange.of(trainer, split, num_tasks, generator)


@dataclass(frozen=True)
class AgentExchange:
    """An agent's states after all points of a trial but the last, which is the one that is scored."""

    measure: Measure
    family: TaskFamily
    agent: Any
    tasks: Record
    state: Any
    generator: torch.Generator

    @classmethod
    def of(cls, trainer: Trainer, split: Split, num_tasks: int, generator: torch.Generator) -> AgentExchange:
        family, agent = trainer.family, trainer.agent
        check_shows_state(agent)
        num_points = trainer.num_points - 1
        if num_points < 1:
            raise UserError(f"{family.name} has one point of adaptation; there is nothing that was adapted to")
        tasks = family.sample(num_tasks, split, generator)
        env = family.make_env(num_tasks * rows_per_task(agent), generator)
        try:
            state = _adapted(env, agent, tasks, num_points, generator)
        finally:
            close(env)
        return cls(trainer.source.measure, family, agent, tasks, state, generator)

    @property
    def num_tasks(self) -> int:
        return len(self.tasks)

    def scores(self, adapted: Tensor | None, scored: Tensor) -> Tensor:
        parts = range(0, len(scored), _PAIRS_AT_ONCE)
        pick = (slice(start, start + _PAIRS_AT_ONCE) for start in parts)
        return torch.cat([self._scores(None if adapted is None else adapted[part], scored[part]) for part in pick])

    def _scores(self, adapted: Tensor | None, scored: Tensor) -> Tensor:
        copies = rows_per_task(self.agent)
        if adapted is None:
            state = self.agent.prior(len(scored), copies)
        else:
            state = self.agent.states_of(self.state, adapted.to(self.generator.device))
        tasks = self.tasks[scored.to(self.generator.device)]
        env = self.family.make_env(len(scored) * copies, self.generator)
        try:
            trajectory = collect(env, self.agent, tasks, 1, generator=self.generator, state=state)
        finally:
            close(env)
        return TrialScores.of(trajectory, len(scored), 1).returns[0]

    @property
    def adapts_while_scored(self) -> bool:
        return self.agent.block is None

    @property
    def floor(self) -> Tensor | None:
        bounds = self.family.bounds(self.tasks, 1)
        return torch.as_tensor(bounds["random"])[0] if "random" in bounds else None


def _adapted(env: Any, agent: Any, tasks: Record, num_points: int, generator: torch.Generator) -> Any:
    """The state after a trial of `num_points` points."""
    if agent.block is None:
        watched: Any = Watched(agent, len(tasks), num_points)
        collect(env, watched, tasks, num_points, generator=generator)
        return watched.state
    copies = rows_per_task(agent)
    state = agent.prior(len(tasks), copies)
    for _ in range(num_points):
        trajectory = collect(env, agent, tasks, agent.block // copies, generator=generator, state=state)
        state = agent.adapt(state, trajectory)
    return state


@dataclass(frozen=True)
class LearnerExchange:
    """A few-shot learner's tasks: any task's support can go with any task's queries."""

    measure: Measure
    problem: Any
    learner: Any
    episode: FewShotEpisode
    num_points: int

    adapts_while_scored = False

    @classmethod
    def of(cls, trainer: Trainer, split: Split, num_tasks: int, generator: torch.Generator) -> LearnerExchange:
        if trainer.family.varies:
            raise UserError(f"tasks of {trainer.family.name} have different numbers of shots, and cannot be exchanged")
        source: Any = trainer.source
        episodes = list(source.test_episodes(trainer.agent, split, num_tasks, generator))
        return cls(source.measure, source.problem, trainer.agent, cat(episodes), trainer.num_points)

    @property
    def num_tasks(self) -> int:
        return len(self.episode.support)

    @property
    def tasks(self) -> Record | None:
        return self.episode.tasks

    def scores(self, adapted: Tensor | None, scored: Tensor) -> Tensor:
        support = self.episode.support[scored if adapted is None else adapted]
        return self.scores_of(FewShotEpisode(support, self.episode.query[scored]), 0 if adapted is None else -1)

    def scores_of(self, episode: FewShotEpisode, point: int) -> Tensor:
        """The scores [N] of other episodes at a point of the curve."""
        per_part = max(1, 1_000_000 // (episode.support.x[0].numel() + episode.query.x[0].numel()))
        found = []
        for start in range(0, len(episode.support), per_part):
            part = episode[start : start + per_part]
            predictions = self.learner.predictions(part, self.num_points)[point]
            found.append(self.problem.score(predictions, part.query).detach())
        return torch.cat(found)

    def mislabelled(self, generator: torch.Generator) -> FewShotEpisode:
        """The tasks with the labels of each support in another order; of each shot, where there are classes."""
        support = self.episode.support
        size = self.problem.ways if isinstance(self.problem, Classification) else support.y.shape[1]
        y = support.y.unflatten(1, (-1, size))  # [N, S, W, ...]
        order = torch.rand(y.shape[:3], generator=generator).argsort(-1).to(y.device)
        shuffled = y.gather(2, order.view(*order.shape, *(1,) * (y.ndim - 3)).expand_as(y)).flatten(1, 2)
        return replace(self.episode, support=replace(support, y=shuffled))

    @property
    def floor(self) -> Tensor:
        """Chance, or the error of always predicting the mean over all tasks."""
        query = self.episode.query
        if isinstance(self.problem, Classification):
            return torch.full((self.num_tasks,), 1 / self.problem.ways)
        return self.problem.score(query.y.mean((0, 1)).expand_as(query.y), query)
