"""Evaluation, the same for every agent: the prior, then repeated (act, adapt) on held-out tasks.

The result is the adaptation curve: the return of episode 1, 2, ... of a trial.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.errors import UserError
from metarl.parallel import sharing
from metarl.protocols import Agent, GroupsTasks, Measures, Split, TaskFamily, VectorEnv
from metarl.records import Digest, Record, Trajectory, cat
from metarl.rl.rollouts import raised, rows_per_task, run_trial
from metarl.statistics import bootstrap_interval, interquartile_mean, tail_mean

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


@dataclass(frozen=True)
class Tail:
    """How the worst tasks fare at one point of the curve, where the mean hides them."""

    cvar20: float  # mean over the worst 20 % of the tasks: the conditional value at risk
    cvar5: float  # mean over the worst 5 %
    worst: float
    worst_task: int  # its index among the tasks

    @classmethod
    def of(cls, scores: Tensor, *, higher_is_better: bool) -> Tail:
        """The tail of scores [N], one per task."""
        sign = 1 if higher_is_better else -1
        values = sign * scores.double().cpu().numpy()
        cvar20, cvar5 = (sign * float(tail_mean(values, fraction)) for fraction in (0.2, 0.05))
        index = int(np.argmin(values))
        return cls(cvar20, cvar5, sign * float(values[index]), index)


def tail_metrics(prefix: str, tail: Tail) -> dict[str, float]:
    """What is logged of the worst tasks, by tag."""
    return {f"{prefix}/cvar20": tail.cvar20, f"{prefix}/cvar5": tail.cvar5, f"{prefix}/worst": tail.worst}


SHARE_OF_ORACLE = 0.9  # of the way from random to oracle: where an agent counts as adapted


@dataclass(frozen=True)
class Speed:
    """How fast an agent adapts: the fraction of the way from random returns to the oracle's, by point of the curve."""

    shares: list[float]
    share: float = SHARE_OF_ORACLE  # the fraction to reach
    reached: int | None = None  # the number of the first point whose mean reaches it; None: none does
    experience: int | None = None  # the episodes of experience that the agent has had before that point

    @classmethod
    def of(
        cls, means: Sequence[float], bounds: Mapping[str, Sequence[float]], first: int, experience: Sequence[int]
    ) -> Speed | None:
        """The speed of a curve of means; None where the returns of `random` and `oracle` are not both known."""
        if not {"random", "oracle"} <= bounds.keys():
            return None
        curve = zip(means, bounds["random"], bounds["oracle"], strict=True)
        shares = [(mean - low) / (high - low) if high > low else math.nan for mean, low, high in curve]
        at = next((index for index, share in enumerate(shares) if share >= SHARE_OF_ORACLE), None)
        if at is None:
            return cls(shares)
        return cls(shares, reached=at + first, experience=experience[at] if experience else None)


RETURN = Measure()  # the return of each episode
ADAPTED_RETURN = Measure(point="step", first=0)  # the mean return of a block of episodes, by number of adaptation steps


def measure_of(agent: Agent[Any, Any]) -> Measure:
    """The measure of an agent's adaptation curve: by episode, or by block of several episodes."""
    return ADAPTED_RETURN if agent.block is not None and agent.block > 1 else RETURN


@dataclass(frozen=True)
class PerTask:
    """What was measured in each task: the means and intervals of an evaluation are computed from it."""

    scores: list[list[float]]  # [points][N]
    bounds: dict[str, list[list[float]]] = field(default_factory=dict)  # [points][N], where known for each task
    metrics: dict[str, list[list[float]]] = field(default_factory=dict)  # [points][N] means over the steps of a point
    parameters: dict[str, list[Any]] = field(default_factory=dict)  # parameters of the tasks by name, [N][...] each
    groups: list[str] = field(default_factory=list)  # names of the tasks' kinds, [N]; empty: all are of one kind

    def by_group(self) -> dict[str, dict[str, list[float]]]:
        """The means over the tasks of each kind, by its name: "score" and the metrics, [points] each."""
        values = {"score": self.scores, **self.metrics}
        found: dict[str, dict[str, list[float]]] = {}
        for group in sorted(set(self.groups)):
            own = torch.tensor([name == group for name in self.groups])
            found[group] = {
                name: torch.tensor(numbers, dtype=torch.float64)[:, own].nanmean(1).tolist()
                for name, numbers in values.items()
            }
        return found

    def rows(self, measure: Measure) -> list[dict[str, Any]]:
        """A row for each task and point, ready for a table: score, "bound.x", "metric.y" and the task's "task.z".

        Parameters of several numbers have a column for each: "task.goal.0", "task.goal.1".
        """
        by_point = {measure.name: self.scores}
        by_point |= {f"bound.{name}": values for name, values in self.bounds.items()}
        by_point |= {f"metric.{name}": values for name, values in self.metrics.items()}
        parameters = _in_columns({f"task.{name}": values for name, values in self.parameters.items()})
        return [
            {
                "task": task,
                measure.point: point + measure.first,
                **{name: values[point][task] for name, values in by_point.items()},
                **{name: values[task] for name, values in parameters.items()},
                **({"group": self.groups[task]} if self.groups else {}),
            }
            for task in range(len(self.scores[0]))
            for point in range(len(self.scores))
        ]


def _in_columns(values: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Nested lists [N][...] as columns [N], each element under a name of its own."""
    columns: dict[str, list[Any]] = {}
    for name, column in values.items():
        if column and isinstance(column[0], list):
            parts = {f"{name}.{index}": list(part) for index, part in enumerate(zip(*column, strict=True))}
            columns |= _in_columns(parts)
        else:
            columns[name] = column
    return columns


@dataclass(frozen=True)
class Evaluation:
    """The adaptation curve of an agent on tasks of one split."""

    family: str
    agent: str
    split: str
    num_tasks: int
    points: list[Score]  # by point of the curve: undiscounted return of each episode, or after each step
    total: Score  # score of the sum over the trial, or of the last point where points do not add up
    bounds: dict[str, list[float]]  # known values on these tasks by episode, e.g. the Bayes-optimal ones
    metrics: dict[str, list[float]] = field(default_factory=dict)  # means over steps and tasks, by name and episode
    measure: Measure = RETURN
    facts: dict[str, Any] = field(default_factory=dict, compare=False)  # details of how the scores were obtained
    tasks_hash: str = ""  # the beginning of the sha256 of all tasks; equal for evaluations on the same tasks
    gain: Score | None = None  # how much better the last point is than the first, paired by task; None: one point
    bound_intervals: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # 95 %, of the mean over tasks
    bound_gaps: dict[str, Score] = field(default_factory=dict)  # the total minus that of the bound, paired by task
    trained_points: int | None = None  # the points of the curve that training had; None: not counted in points
    tails: list[Tail] = field(default_factory=list)  # the worst tasks, by point of the curve
    experience: list[int] = field(default_factory=list)  # episodes in the task before each point; empty: no episodes
    speed: Speed | None = None  # None: the returns of random actions or of the oracle are not known
    per_task: PerTask | None = None

    @classmethod
    def of(
        cls,
        scores: Tensor,
        *,
        family: str,
        agent: str,
        split: str,
        measure: Measure,
        tasks: Record | None = None,
        bounds: Mapping[str, Tensor | Sequence[float]] | None = None,
        metrics: Mapping[str, Tensor] | None = None,
        trained_points: int | None = None,
        tasks_hash: str = "",
        experience: Sequence[int] = (),
        groups: Sequence[str] = (),
    ) -> Evaluation:
        """The evaluation that scores [P, N] of N tasks make.

        tasks: the tasks, whose parameters are kept. bounds: known values, [P, N] or [P]. metrics: other numbers [P, N].
        experience: the episodes of experience in the task before each point. groups: names of the tasks' kinds [N].
        """
        points = [Score.of(point) for point in scores]
        total = scores.sum(0) if measure.adds_up else scores[-1]
        known = {name: torch.as_tensor(values).cpu() for name, values in (bounds or {}).items()}
        paired = {name: values.double() for name, values in known.items() if values.ndim == 2}  # [P, N]
        totals = {name: values.sum(0) if measure.adds_up else values[-1] for name, values in paired.items()}
        rise = (scores[-1] - scores[0]) * (1 if measure.higher_is_better else -1)
        metrics = metrics or {}
        means = {name: values.double().reshape(len(points), -1).mean(1).tolist() for name, values in known.items()}
        return cls(
            family=family,
            agent=agent,
            split=split,
            num_tasks=scores.shape[1],
            points=points,
            total=Score.of(total) if measure.adds_up else points[-1],
            bounds=means,
            metrics={name: values.nanmean(1).tolist() for name, values in metrics.items()},
            measure=measure,
            gain=Score.of(rise) if len(points) > 1 else None,
            bound_intervals={name: _intervals(values) for name, values in paired.items()},
            bound_gaps={name: Score.of(total.cpu().double() - values) for name, values in totals.items()},
            trained_points=trained_points,
            tasks_hash=tasks_hash,
            tails=[Tail.of(point, higher_is_better=measure.higher_is_better) for point in scores],
            experience=list(experience),
            speed=Speed.of([point.mean for point in points], means, measure.first, experience),
            per_task=PerTask(
                scores=_numbers(scores),
                bounds={name: _numbers(values) for name, values in paired.items()},
                metrics={name: _numbers(values) for name, values in metrics.items()},
                parameters=_parameters(tasks),
                groups=list(groups),
            ),
        )

    def as_json(self) -> dict[str, Any]:
        """The evaluation as JSON values; numbers that are not finite (errors of a diverged learner) become None."""
        return finite_or_none(asdict(self))

    def check_finite(self) -> None:
        """Refuse a curve that says nothing, as that of a learner that has diverged.

        Raises:
            FloatingPointError: when the mean is not finite at any point after the learner has begun to adapt.
        """
        adapted = self.points[1 - self.measure.first :] or self.points
        if not any(math.isfinite(point.mean) for point in adapted):
            where = f"at any {self.measure.point} of {self.num_tasks} {self.split} tasks of {self.family}"
            raise FloatingPointError(f"{self.measure.name} of {self.agent} is not finite {where}")

    def to_frame(self, *, per_task: bool = False) -> Any:
        """The curve as a pandas DataFrame: one row per point, with its scores, known bounds and metrics.

        per_task: one row per task and point instead, as `PerTask.rows` has them.

        Raises:
            UserError: when pandas is not installed.
        """
        try:
            import pandas  # pyright: ignore[reportMissingImports], an extra
        except ImportError as error:
            raise UserError("to_frame needs pandas, which is not installed: pip install 'metarl[pandas]'") from error
        if per_task and self.per_task is not None:
            return pandas.DataFrame(self.per_task.rows(self.measure))
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


def _intervals(values: Tensor) -> list[tuple[float, float]]:
    """The 95 % bootstrap interval of the mean over tasks at each point [P, N]."""
    intervals: list[tuple[float, float]] = []
    for index, row in enumerate(values):
        same = index > 0 and torch.equal(row, values[index - 1])  # most bounds do not change along a curve
        intervals.append(intervals[-1] if same else bootstrap_interval(row.numpy()))
    return intervals


def _parameters(tasks: Record | None) -> dict[str, list[Any]]:
    """The tasks' parameters as nested lists [N][...], by name; those of records inside by "outer.inner"."""
    found: dict[str, list[Any]] = {}
    for name, value in {} if tasks is None else vars(tasks).items():
        if isinstance(value, Tensor):
            found[name] = _numbers(value)
        elif isinstance(value, Record):
            found |= {f"{name}.{inner}": numbers for inner, numbers in _parameters(value).items()}
    return found


def _numbers(values: Tensor) -> list[Any]:
    """Nested lists; single precision has the digits that it has, and not those of its doubles."""
    if values.dtype != torch.float32:
        return values.tolist()
    short = [float(str(value)) for value in values.detach().cpu().numpy().flatten()]
    return np.array(short).reshape(values.shape).tolist()


def finite_or_none(value: Any) -> Any:
    """What JSON can hold: numbers that are not finite become None, also inside of lists and dictionaries."""
    if isinstance(value, dict):
        return {key: finite_or_none(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_or_none(inner) for inner in value]
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


Reference = Callable[[Record, int, torch.Generator], Tensor]  # returns [points, N] on tasks [N], by number of points


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
    trained_points: int | None = None,
    references: Mapping[str, Reference] | None = None,
) -> Evaluation:
    """The adaptation curve with `num_points` points, on `num_tasks` fresh tasks of a split or on the given ones.

    The tasks and all randomness come from the generator. Each task has one row, or one per episode of the agent's
    block. deterministic: act by the policy's mode. trained_points: the number of points of the curve in training.
    references: what else to measure on the same tasks, with the same random numbers, as bounds by name.

    Raises:
        ValueError: when a number is below one, the family does not declare the split, or an agent that adapts to blocks
            of episodes would have to adapt without sampled actions.
    """
    for name, value in (("num_tasks", num_tasks), ("num_points", num_points)):
        if value < 1:
            raise ValueError(f"{name} is {value}; must be at least 1")
    if deterministic and measure_of(agent) == ADAPTED_RETURN and num_points > 1:
        raise ValueError(
            f"deterministic is True; {agent_name} adapts to blocks of episodes of sampled actions, which would all be "
            "the same: it must be False, or num_points 1"
        )
    tasks = family.sample(num_tasks, split, generator) if tasks is None else tasks
    digest = Digest()
    digest.add(tasks)
    random_numbers = generator.get_state()
    with sharing(len(tasks)) as share:
        env = family.make_env(share.size * rows_per_task(agent), generator)
        with share.noise():
            own = run_trials(env, agent, share.own(tasks), num_points, generator=None if deterministic else generator)
        scores = share.gathered(own, dim=1)
    measured = {
        name: reference(tasks, num_points, torch.Generator(generator.device).set_state(random_numbers))
        for name, reference in (references or {}).items()
    }
    evaluation = Evaluation.of(
        scores.returns,
        family=family.name,
        agent=agent_name,
        split=split,
        measure=measure_of(agent),
        tasks=tasks,
        bounds={**_bounds(family, tasks, num_points), **measured},
        metrics=metrics_by_name(env, scores.metrics),
        trained_points=trained_points,
        tasks_hash=str(digest),
        experience=[index * (agent.block or 1) for index in range(len(scores.returns))],
        groups=family.groups(tasks) if isinstance(family, GroupsTasks) else (),
    )
    return replace(evaluation, facts={"deterministic": True}) if deterministic else evaluation


def metrics_by_name(env: VectorEnv, metrics: Tensor | None) -> dict[str, Tensor]:
    """An environment's metrics [points, N, M] by name, [points, N] each; empty where it has none."""
    if metrics is None or not isinstance(env, Measures):
        return {}
    return dict(zip(env.metric_names, metrics.unbind(-1), strict=True))


def _bounds(family: TaskFamily, tasks: Record, num_points: int) -> Mapping[str, Tensor | Sequence[float]]:
    """What is known of the tasks; nothing, and a warning, where the family fails to say it: the scores are kept."""
    try:
        return family.bounds(tasks, num_points)
    except Exception as error:  # whatever a search, or a family of the user's own, leads to
        logger.warning("%s: no bounds are given: %s", family.name, raised(error))
        return {}


def mean_metrics(env: VectorEnv, metrics: Tensor | None) -> dict[str, list[float]]:
    """The mean of an environment's metrics [points, N, M] over the tasks that have it, by name; empty without any."""
    return {name: values.nanmean(1).tolist() for name, values in metrics_by_name(env, metrics).items()}


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
