"""Forgetting during training: the scores of the first training tasks at each checkpoint that a run keeps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from experiments.experiment.definition import Experiment, restored
from experiments.workbench.insight.findings import Difference, Evidence, Finding, score_row, text
from metarl.evaluation import logged_points, run_trials
from metarl.fewshot.episode import FewShotFamily
from metarl.rl.rollouts import rows_per_task
from metarl.run.directory import Run
from metarl.trainer import Trainer

CHECKPOINTS = ("best", "latest")  # what a run keeps


def forgetting(run: Run, experiment: Experiment[Any, Any], num_tasks: int, seed: int) -> Finding:
    """The first training tasks, those of the first iterations, at the checkpoints `best` and `latest`."""
    kept = {name: restored(experiment, run, name, to_train=False) for name in CHECKPOINTS if run.has(name)}
    by_iteration = {trainer.iteration: trainer for trainer in kept.values()}
    curve = _logged(run, next(iter(kept.values()))) if kept else []
    if len(by_iteration) < 2:
        verdict = "cannot be told: the run keeps one checkpoint only, or `best` and `latest` are the same"
        return Finding("forgetting", "unknown", verdict, curve)
    early, late = (by_iteration[iteration] for iteration in sorted(by_iteration))
    scores = {trainer.iteration: _first_tasks(trainer, num_tasks, seed) for trainer in (early, late)}
    measure = late.source.measure
    rows = [score_row(f"{iteration:,}", values) for iteration, values in scores.items()]
    title = f"{measure.name} at the last point on the first {num_tasks} training tasks"
    evidence = [Evidence(title, ["iteration", "mean", "95 %"], rows), *curve]
    lost = Difference.of(scores[early.iteration], scores[late.iteration], measure)
    numbers = {"lost": lost.mean, "lost_low": lost.low}
    span = f"between iterations {early.iteration:,} and {late.iteration:,}, the two that the run keeps"
    if lost.low > 0:
        return Finding(
            "forgetting", "warning", f"the first tasks were better before, by {lost}, {span}", evidence, numbers
        )
    return Finding(
        "forgetting", "fine", f"the first tasks were not better before: by {lost}, {span}", evidence, numbers
    )


def _first_tasks(trainer: Trainer, num_tasks: int, seed: int) -> Tensor:
    """The scores [N] at the last point in the first tasks that the training drew."""
    stream = trainer.generators["task"]  # restored without its state: as at the start of the training
    generator = torch.Generator(trainer.device).manual_seed(seed)
    if isinstance(trainer.family, FewShotFamily):
        episode = trainer.family.training.episode(num_tasks, "train", generator=stream)
        learner: Any = trainer.agent
        points = 1 if learner.point != "step" and trainer.family.training.varies else trainer.num_points
        points = points if learner.point == "step" else min(points, trainer.family.training.shots)
        predictions = learner.predictions(episode, points)[-1]
        source: Any = trainer.source
        return source.problem.score(predictions, episode.query).detach().cpu()
    tasks = trainer.family.sample(num_tasks, "train", stream)
    env = trainer.family.make_env(num_tasks * rows_per_task(trainer.agent), generator)
    return run_trials(env, trainer.agent, tasks, trainer.num_points, generator=generator).returns[-1].cpu()


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
