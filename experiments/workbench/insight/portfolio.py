"""A portfolio of trained learners, chosen for each task by its support or by its first episodes.

The measures are those of algorithm selection (Rice. The algorithm selection problem, 1976; Xu et al. Evaluating
component solver contributions to portfolio-based algorithm selectors, 2012): the single best candidate, chosen on
training tasks; the best one in hindsight for each task; and the share of the gap between them that the choice closes.

A few-shot candidate is a run with a number of adaptation points, so choosing it also stops adaptation early. It is
chosen by its mean score on one part of the support after another, each held out in turn: an example of a function, or a
shot of all classes. A support of one part says nothing, and the single best is taken. An agent is chosen by its return
in the first episodes, for which all of them must act in the task.

Few examples say little, and the best of many noisy scores is often a bad candidate. So a candidate's score in a task is
estimated between its mean on training tasks and what the task tells, with the weight that does best on training tasks;
a weight of zero always takes the single best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from envs.rows import close
from metarl.errors import UserError
from metarl.evaluation import Measure, finite_or_none, run_trials
from metarl.fewshot.episode import FewShotEpisode, FewShotFamily
from metarl.fewshot.problem import Classification
from metarl.protocols import Split
from metarl.records import cat
from metarl.rl.rollouts import rows_per_task
from metarl.statistics import ratio_interval
from metarl.trainer import Trainer

STEPS = (0, 1, 2, 5, 10, 20)  # of adaptation, each a candidate
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of what a task tells of a candidate, against its mean on training tasks


@dataclass(frozen=True)
class Scored:
    """All candidates on N tasks. Of all numbers, higher is better; where a candidate diverges, it is minus infinity."""

    names: list[str]
    scores: Tensor  # [C, N]
    told: Tensor | None  # [C, N], what each task's support or first episodes say of the candidates; None: nothing


@dataclass(frozen=True)
class Choice:
    """What choosing is worth on the test tasks; scores as the measure has them."""

    names: list[str]
    means: list[float]  # of each candidate
    shares: list[float]  # of the tasks for which each was chosen
    weight: float  # of what a task tells, against the means on training tasks
    single: str  # the best on training tasks
    single_mean: float
    chosen_mean: float
    best_mean: float  # of the best in hindsight
    closed: float  # the share of the gap; NaN without a gap, or where it is infinite
    closed_ci95: tuple[float, float]

    def as_json(self) -> dict[str, Any]:
        return finite_or_none(asdict(self))


def choose(trained: Scored, tested: Scored, measure: Measure) -> Choice:
    """Choose a candidate for each test task; where nothing is told, the best on training tasks.

    Raises:
        UserError: when every candidate diverges on some training task.
    """
    means, scores = trained.scores.double().mean(1), tested.scores.double()
    if not means.isfinite().any():
        raise UserError("no candidate has finite scores on all training tasks; there is none to choose")
    single, weight = int(means.argmax()), _weight(trained)
    picks = _picks(means, tested, weight)
    chosen = scores.gather(0, picks[None])[0]
    gained, possible = chosen - scores[single], scores.amax(0) - scores[single]
    sign = 1 if measure.higher_is_better else -1
    has_gap = math.isfinite(possible.mean()) and float(possible.mean()) > 0
    return Choice(
        names=tested.names,
        means=(sign * scores.mean(1)).tolist(),
        shares=(picks.bincount(minlength=len(scores)) / len(picks)).tolist(),
        weight=weight,
        single=tested.names[single],
        single_mean=sign * float(scores[single].mean()),
        chosen_mean=sign * float(chosen.mean()),
        best_mean=sign * float(scores.amax(0).mean()),
        closed=float(gained.mean() / possible.mean()) if has_gap else float("nan"),
        closed_ci95=ratio_interval(gained.numpy(), possible.numpy()) if has_gap else (float("nan"), float("nan")),
    )


def _weight(trained: Scored) -> float:
    """The weight of what is told with which choosing does best on training tasks; the smallest of equal ones."""
    if trained.told is None:
        return 0.0
    scores = trained.scores.double()
    reached = {w: float(scores.gather(0, _picks(scores.mean(1), trained, w)[None]).mean()) for w in WEIGHTS}
    return max(WEIGHTS, key=lambda weight: reached[weight])


def _picks(means: Tensor, tasks: Scored, weight: float) -> Tensor:
    """The candidate with the best estimate in each task, and in ties that with the best mean: [N].

    means: of the candidates on training tasks, [C]. An estimate is the mean, drawn by `weight` towards what is told.
    """
    single = int(means.argmax())
    if tasks.told is None or weight == 0:
        return torch.full((tasks.scores.shape[1],), single)
    told = tasks.told.double()
    estimates = told if weight == 1 else (1 - weight) * means[:, None] + weight * told
    return torch.where(estimates.amax(0) > estimates[single], estimates.argmax(0), single)


def scored(
    trainers: Sequence[Trainer],
    names: Sequence[str],
    split: Split,
    num_tasks: int,
    *,
    shots: int | None,
    first_points: int,
    seed: int,
) -> Scored:
    """All runs on tasks drawn in equal parts from their families, the same tasks for all.

    shots: examples per task, or per class; None: the smallest number of the families. first_points: the episodes, or
    blocks of them, by whose return agents are chosen.

    Raises:
        UserError: when the runs do not solve the same kind of task.
        ValueError: when a family does not declare the split.
    """
    is_few_shot = {isinstance(trainer.family, FewShotFamily) for trainer in trainers}
    if len(is_few_shot) > 1:
        raise UserError("a portfolio has few-shot learners or agents; these runs are of both kinds")
    if is_few_shot == {True}:
        return _learners(trainers, names, split, num_tasks, shots, seed)
    return _agents(trainers, names, split, num_tasks, first_points, seed)


def _learners(
    trainers: Sequence[Trainer], names: Sequence[str], split: Split, num_tasks: int, shots: int | None, seed: int
) -> Scored:
    problems = {(t.family.problem.input_shape, t.family.problem.output_size) for t in trainers}
    if len(problems) > 1:
        raise UserError(f"tasks of these runs have inputs and outputs of different sizes: {sorted(problems, key=str)}")
    families = _distinct(trainers)
    num_shots = min(family.shots for family in families) if shots is None else shots
    generator = torch.Generator().manual_seed(seed)
    per_family = max(1, num_tasks // len(families))
    episodes = [
        family.episode(per_family, split, shots=num_shots, queries=family.test_queries, generator=generator)
        for family in families
    ]
    episode = cat([replace(one, tasks=None) for one in episodes])
    problem = families[0].problem
    size = problem.ways if isinstance(problem, Classification) else 1
    sign = 1 if problem.measure.higher_is_better else -1
    labels, scores, told = [], [], []
    for name, trainer in zip(names, trainers, strict=True):
        learner: Any = trainer.agent
        points = list(STEPS) if learner.point == "step" else [num_shots]
        of_points = problem.score(learner.predictions(episode, points[-1]), episode.query)  # [P + 1, N]
        labels += [f"{name}, {learner.point} {point}" for point in points]
        scores += [sign * of_points[point].detach() for point in points]
        if num_shots > 1:
            held_out = _on_held_out(learner, problem, episode, size)
            told += [sign * held_out[point] for point in (points if learner.point == "step" else [-1])]
    return Scored(labels, _comparable(scores), _comparable(told) if told else None)


def _distinct(trainers: Sequence[Trainer]) -> list[Any]:
    """The families of the runs, of which those that differ in numbers of examples only are one."""
    sizes = {"shots", "queries", "test_queries", "train_shots"}

    def kind(family: Any) -> tuple[Any, ...]:
        return type(family), *(getattr(family, one.name) for one in fields(family) if one.name not in sizes)

    found: list[Any] = []
    for trainer in trainers:
        if all(kind(trainer.family) != kind(family) for family in found):
            found.append(trainer.family)
    return found


def _comparable(scores: Sequence[Tensor]) -> Tensor:
    """The scores of all candidates, in which whatever is not finite is minus infinity: [C, ...]."""
    together = torch.stack(list(scores))
    return together.where(together.isfinite(), -torch.inf)


def _on_held_out(learner: Any, problem: Any, episode: FewShotEpisode, size: int) -> Tensor:
    """The mean score on each part of the support after adapting to the others, by point: [P + 1, N]."""
    support = episode.support
    numbers = torch.arange(support.x.shape[1]) // size
    num_parts = int(numbers.max()) + 1
    found = []
    for part in range(num_parts):
        others, own = (support.map(lambda v, keep=keep: v[:, keep]) for keep in (numbers != part, numbers == part))
        points = STEPS[-1] if learner.point == "step" else num_parts - 1
        predictions = learner.predictions(FewShotEpisode(others, own), points)
        found.append(problem.score(predictions, own).detach())
    return torch.stack(found).mean(0)


def _agents(
    trainers: Sequence[Trainer], names: Sequence[str], split: Split, num_tasks: int, first_points: int, seed: int
) -> Scored:
    family = trainers[0].family
    others = [trainer.family for trainer in trainers if trainer.family != family]
    if others:
        what = "with different settings" if others[0].name == family.name else f"and {others[0].name}"
        raise UserError(f"agents of a portfolio act in one family; these act in {family.name} {what}")
    tasks = family.sample(num_tasks, split, torch.Generator().manual_seed(seed))
    num_points = min(trainer.num_points for trainer in trainers)
    if first_points >= num_points:
        raise UserError(f"--first is {first_points}; must be below {num_points}, the points of adaptation")
    returns = []
    for trainer in trainers:
        generator = torch.Generator().manual_seed(seed + 1)
        env = family.make_env(num_tasks * rows_per_task(trainer.agent), generator)
        try:
            returns.append(run_trials(env, trainer.agent, tasks, num_points, generator=generator).returns)
        finally:
            close(env)
    of_all = _comparable(returns)  # [C, points, N]
    return Scored(list(names), of_all[:, -1], of_all[:, :first_points].sum(1) if first_points else None)
