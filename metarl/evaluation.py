"""Evaluation, the same for every agent: the prior, then repeated (act, adapt) on held-out tasks.

The result is the adaptation curve: the return of episode 1, 2, ... of a trial.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.errors import UserError
from metarl.protocols import Agent, Measures, Split, TaskFamily, VectorEnv
from metarl.records import Digest, Record, Trajectory, cat
from metarl.rl.rollouts import raised, rows_per_task, run_trial
from metarl.statistics import bootstrap_interval, interquartile_mean

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """Mean, interquartile mean and the 95 % bootstrap interval of the mean, over tasks."""

    mean: float
    iqm: float
    ci95: tuple[float, float]

    @classmethod
    def of(cls, returns: Tensor) -> Score:
        """The score of returns [N], one per task."""
        values = returns.double().cpu().numpy()
        with np.errstate(invalid="ignore", over="ignore"):  # of a learner that diverged: check_finite tells
            return cls(float(np.mean(values)), float(interquartile_mean(values)), bootstrap_interval(values))


@dataclass(frozen=True)
class Measure:
    """The quantities on the axes of an adaptation curve."""

    name: str = "return"
    point: str = "episode"  # unit of the horizontal axis
    first: int = 1  # the number of the first point: episodes count from one, steps from zero
    higher_is_better: bool = True

    def is_better(self, value: float, than: float) -> bool:
        return value > than if self.higher_is_better else value < than

    @property
    def worst(self) -> float:
        return -math.inf if self.higher_is_better else math.inf

    @property
    def adds_up(self) -> bool:
        """Whether the points are parts of one sum, as the episodes of a trial are."""
        return self.point == "episode"

    @property
    def point_tag(self) -> str:
        return "ep" if self.point == "episode" else self.point

    @property
    def tag(self) -> str:
        """The prefix of the points' logged tags, e.g. "return/ep_"."""
        return f"{self.name}/{self.point_tag}_"


RETURN = Measure()  # the return of each episode
ADAPTED_RETURN = Measure(point="step", first=0)  # the mean return of a block of episodes, by number of adaptation steps


def measure_of(agent: Agent[Any, Any]) -> Measure:
    """The measure of an agent's adaptation curve: by episode, or by block of several episodes."""
    return ADAPTED_RETURN if agent.block is not None and agent.block > 1 else RETURN


@dataclass(frozen=True)
class Evaluation:
    """The adaptation curve of an agent on tasks of one split."""

    family: str
    agent: str
    split: str
    num_tasks: int
    points: list[Score]  # by point of the curve: undiscounted return of each episode, or after each step
    total: Score  # score of the sum over the trial, or of the last point where points do not add up
    bounds: dict[str, list[float]]  # known values by episode, e.g. the Bayes-optimal ones
    metrics: dict[str, list[float]] = field(default_factory=dict)  # means over steps and tasks, by name and episode
    measure: Measure = RETURN
    facts: dict[str, Any] = field(default_factory=dict, compare=False)  # details of how the scores were obtained
    tasks_hash: str = ""  # the beginning of the sha256 of all tasks; equal for evaluations on the same tasks

    def as_json(self) -> dict[str, Any]:
        """The evaluation as JSON values; numbers that are not finite (errors of a diverged learner) become None."""
        return _finite_or_none(asdict(self))

    def check_finite(self) -> None:
        """Refuse a curve that says nothing, as that of a learner that has diverged.

        Raises:
            FloatingPointError: when the mean is not finite at any point after the learner has begun to adapt.
        """
        adapted = self.points[1 - self.measure.first :] or self.points
        if not any(math.isfinite(point.mean) for point in adapted):
            where = f"at any {self.measure.point} of {self.num_tasks} {self.split} tasks of {self.family}"
            raise FloatingPointError(f"{self.measure.name} of {self.agent} is not finite {where}")

    def to_frame(self) -> Any:
        """The curve as a pandas DataFrame: one row per point, with its scores, known bounds and metrics.

        Raises:
            UserError: when pandas is not installed.
        """
        try:
            import pandas  # pyright: ignore[reportMissingImports], an extra
        except ImportError as error:
            raise UserError("to_frame needs pandas, which is not installed: pip install 'metarl[pandas]'") from error
        columns: dict[str, list[float]] = {
            "mean": [score.mean for score in self.points],
            "iqm": [score.iqm for score in self.points],
            "ci95_low": [score.ci95[0] for score in self.points],
            "ci95_high": [score.ci95[1] for score in self.points],
            **self.bounds,
            **self.metrics,
        }
        numbers = range(self.measure.first, self.measure.first + len(self.points))
        return pandas.DataFrame(columns, index=pandas.Index(numbers, name=self.measure.point))


def _finite_or_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite_or_none(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite_or_none(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class TrialScores(Record):
    """The results of trials in fresh tasks, by point of the adaptation curve."""

    returns: Tensor  # [points, N], means over the rows of a task
    metrics: Tensor | None  # [points, N, M], means over the steps and rows that measured it; None without metrics

    @classmethod
    def of(cls, trajectory: Trajectory[Any], num_tasks: int, num_points: int) -> TrialScores:
        """The scores of one trajectory whose rows have a multiple of `num_points` episodes, averaged per point."""
        num_episodes = int(trajectory.episode_index.max()) + 1

        def by_task(values: Tensor) -> Tensor:  # [episodes, B, ...] -> [points, episodes, N, rows, ...]
            episodes, rows = values.shape[:2]
            shape = (num_points, episodes // num_points, num_tasks, rows // num_tasks)
            return values.reshape(*shape, *values.shape[2:])

        returns, metrics = trajectory.episode_returns(num_episodes), trajectory.episode_metrics(num_episodes)
        return cls(by_task(returns).mean((1, 3)), None if metrics is None else by_task(metrics).nanmean((1, 3)))


def run_trials(
    env: VectorEnv, agent: Agent[Any, Any], tasks: Record, num_points: int, *, generator: torch.Generator | None
) -> TrialScores:
    """Run a trial in every task, from the agent's prior: act and adapt.

    num_points: the length of the adaptation curve. generator: for sampled actions; None: the policy's mode.
    """
    points = num_points if agent.block is None else 1
    trial = run_trial(env, agent, tasks, num_points, generator=generator)
    return cat([TrialScores.of(trajectory, len(tasks), points) for trajectory in trial])


def evaluate(
    family: TaskFamily,
    agent: Agent[Any, Any],
    *,
    agent_name: str,
    split: Split,
    num_tasks: int,
    num_points: int,
    generator: torch.Generator,
    deterministic: bool = False,
    tasks: Record | None = None,
) -> Evaluation:
    """The adaptation curve with `num_points` points, on `num_tasks` fresh tasks of a split or on the given ones.

    The tasks and all randomness come from the generator. Each task has one row, or one per episode of the agent's
    block. deterministic: act by the policy's mode.

    Raises:
        ValueError: when a number is below one, or the family does not declare the split.
    """
    for name, value in (("num_tasks", num_tasks), ("num_points", num_points)):
        if value < 1:
            raise ValueError(f"{name} is {value}; must be at least 1")
    tasks = family.sample(num_tasks, split, generator) if tasks is None else tasks
    num_tasks = len(tasks)
    digest = Digest()
    digest.add(tasks)
    env = family.make_env(num_tasks * rows_per_task(agent), generator)
    scores = run_trials(env, agent, tasks, num_points, generator=None if deterministic else generator)
    measure = measure_of(agent)
    points = [Score.of(point) for point in scores.returns]
    return Evaluation(
        family=family.name,
        agent=agent_name,
        split=split,
        num_tasks=num_tasks,
        points=points,
        total=Score.of(scores.returns.sum(0)) if measure.adds_up else points[-1],
        bounds=_bounds(family, tasks, num_points),
        metrics=mean_metrics(env, scores.metrics),
        measure=measure,
        tasks_hash=str(digest),
    )


def _bounds(family: TaskFamily, tasks: Record, num_points: int) -> dict[str, list[float]]:
    """What is known of the tasks; nothing, and a warning, where the family fails to say it: the scores are kept."""
    try:
        return family.bounds(tasks, num_points)
    except Exception as error:  # whatever a search, or a family of the user's own, leads to
        logger.warning("%s: no bounds are given: %s", family.name, raised(error))
        return {}


def mean_metrics(env: VectorEnv, metrics: Tensor | None) -> dict[str, list[float]]:
    """The mean of an environment's metrics [points, N, M] over the tasks that have it, by name; empty without any."""
    if metrics is None or not isinstance(env, Measures):
        return {}
    means = metrics.nanmean(1).T.tolist()
    return dict(zip(env.metric_names, means, strict=True))


def by_point(prefix: str, metrics: Mapping[str, list[float]], measure: Measure) -> dict[str, float]:
    """A family's own metrics by their logged tags, e.g. "meta_test/velocity_error/ep_1"."""
    return {
        f"{prefix}/{name}/{measure.point_tag}_{k}": values[k - measure.first]
        for name, values in metrics.items()
        for k in logged_points(measure, len(values))
    }


def logged_points(measure: Measure, num_points: int) -> list[int]:
    """The points of a curve, in its measure's numbering, that are logged and printed."""
    if measure.first == 1:
        return _logged_numbers(num_points)
    return [0, *_logged_numbers(num_points - 1)] if num_points > 1 else [0]


def _logged_numbers(num_points: int) -> list[int]:
    """The points, counted from one, that are logged: all if there are few, else 1, 2, 5, 10, 20, ..."""
    if num_points <= 10:
        return list(range(1, num_points + 1))
    series = [digit * 10**power for power in range(len(str(num_points))) for digit in (1, 2, 5)]
    return [k for k in series if k < num_points] + [num_points]
