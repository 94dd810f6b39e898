"""Forgetting during training: the scores of the first training tasks at each checkpoint that a run keeps.

The measure is the largest loss since any earlier checkpoint (Chaudhry et al. Riemannian walk for incremental learning,
2018). Deviation: the best of many earlier checkpoints is chosen on one half of the tasks and compared on the other, as
the best of many noisy scores is too good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from envs.rows import close
from experiments.experiment.definition import Experiment, restored
from experiments.workbench.insight.findings import Difference, Evidence, Finding, score_row, text
from metarl.evaluation import Measure, logged_points, run_trials
from metarl.fewshot.episode import FewShotFamily
from metarl.fewshot.source import FewShotSource
from metarl.records import cat
from metarl.rl.replay_source import ReplaySource
from metarl.rl.rollouts import rows_per_task
from metarl.run.directory import Run
from metarl.trainer import Trainer


def forgetting(run: Run, experiment: Experiment[Any, Any], num_tasks: int, seed: int) -> Finding:
    """The first training tasks, those of the first iterations, at all checkpoints that the run keeps."""
    scores: dict[int, Tensor] = {}
    trainer = None
    for name in run.checkpoints():
        trainer = restored(experiment, run, name, to_train=False)
        if trainer.iteration not in scores:
            scores[trainer.iteration] = _first_tasks(trainer, num_tasks, seed)
    curve = [] if trainer is None else _logged(run, trainer)
    if trainer is None or len(scores) < 2:
        verdict = "cannot be told: the run keeps checkpoints of one iteration only; --train.keep-every N keeps more"
        return Finding("forgetting", "unknown", verdict, curve)
    measure, iterations = trainer.source.measure, sorted(scores)
    rows = [score_row(f"{iteration:,}", scores[iteration]) for iteration in iterations]
    title = f"{measure.name} at the last point on the first {len(scores[iterations[0]])} training tasks"
    evidence = [Evidence(title, ["iteration", "mean", "95 %"], rows), *curve]
    early, lost = _lost(scores, measure)
    numbers = {"lost": lost.mean, "lost_low": lost.low}
    span = f"iteration {early:,}, of {len(scores) - 1} before {iterations[-1]:,}"
    if lost.low > 0:
        verdict = f"the first tasks were better before, by {lost}, at {span}"
        return Finding("forgetting", "warning", verdict, evidence, numbers)
    return Finding(
        "forgetting", "fine", f"the first tasks were not better before: by {lost} at {span}", evidence, numbers
    )


def _lost(scores: Mapping[int, Tensor], measure: Measure) -> tuple[int, Difference]:
    """The best iteration before the last, and how much better it is; one of several is compared on tasks of its own.

    scores: of each iteration, [N].
    """
    *earlier, last = sorted(scores)
    if len(earlier) == 1:
        return earlier[0], Difference.of(scores[earlier[0]], scores[last], measure)
    sign = 1 if measure.higher_is_better else -1
    best = max(earlier, key=lambda iteration: float(sign * scores[iteration][::2].mean()))
    return best, Difference.of(scores[best][1::2], scores[last][1::2], measure)


def _first_tasks(trainer: Trainer, num_tasks: int, seed: int) -> Tensor:
    """The scores at the last point in the first tasks that the training drew, at most `num_tasks`.

    The trainer was restored without its random streams, so these are as at the start of the training.
    """
    if isinstance(trainer.family, FewShotFamily):
        return _first_episodes(trainer, num_tasks)
    source, family = trainer.source, trainer.family
    if isinstance(source, ReplaySource):
        tasks = source.tasks
    else:
        per_draw, stream = trainer.config.num_tasks, trainer.generators["task"]
        tasks = cat([family.sample(per_draw, "train", stream) for _ in range(math.ceil(num_tasks / per_draw))])
    tasks = tasks[:num_tasks]
    generator = torch.Generator(trainer.device).manual_seed(seed)
    env = family.make_env(len(tasks) * rows_per_task(trainer.agent), generator)
    try:
        return run_trials(env, trainer.agent, tasks, trainer.num_points, generator=generator).returns[-1].cpu()
    finally:
        close(env)


def _first_episodes(trainer: Trainer, num_tasks: int) -> Tensor:
    source, learner, family = cast(FewShotSource, trainer.source), trainer.agent, trainer.family.training
    points = trainer.num_points
    if learner.point != "step":
        points = 1 if family.varies else min(points, family.shots)
    scores: list[Tensor] = []
    while sum(map(len, scores)) < num_tasks:
        episode = source.draw(learner).experience
        scores.append(source.problem.score(learner.predictions(episode, points)[-1], episode.query).detach().cpu())
    return torch.cat(scores)[:num_tasks]


def _logged(run: Run, trainer: Trainer) -> list[Evidence]:
    """What the log says of the same held-out tasks in the course of the training."""
    measure = trainer.source.measure
    last = logged_points(measure, trainer.num_points + 1 - measure.first)[-1]
    rows = []
    for prefix in ("meta_val", "meta_test"):
        tag = f"{prefix}/{measure.tag}{last}"
        rows += [[f"{row.get('time/iterations', 0):,.0f}", text(row[tag])] for row in run.progress() if tag in row]
        if rows:
            break
    return (
        [Evidence("held-out tasks, always the same, by iteration", ["iteration", measure.name], rows)] if rows else []
    )
