"""The end of a sweep: its table, its pictures, the winner under fresh seeds, and its recipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from experiments.cli.session import new_run
from experiments.cli.tables import identity, print_table
from experiments.experiment.code_choice import CodeChoice
from experiments.experiment.definition import restored, to_config
from experiments.experiment.reading import read
from experiments.workbench.launching.engines import Engine
from experiments.workbench.launching.launcher import Job, State, execute
from experiments.workbench.launching.plan import PlannedExperiment, PlannedRun
from experiments.workbench.launching.standing import standing
from experiments.workbench.sweeping.objective import VALIDATION_SEED, Objective, validate, validation_scores
from experiments.workbench.sweeping.recipe import recipe_of
from experiments.workbench.sweeping.study import Study
from experiments.workbench.sweeping.sweeper import Plan, best_of
from metarl.errors import RunError
from metarl.run.directory import Run
from metarl.run.files import reason, write_whole
from metarl.statistics import Scores, bootstrap_interval, interval_over_rows

_MOST_ROWS = 15  # of the table


@dataclass(frozen=True)
class Confirmation:
    """The winner's settings trained again with seeds that no trial had."""

    seeds: list[int]
    values: list[float]  # the objective on validation tasks, by seed
    mean: float
    interval: tuple[float, float]  # 95 % bootstrap interval: of whole seeds, or of tasks where there is one seed
    test: list[float]  # the objective on test tasks by seed, which nothing was chosen by
    runs: list[str]


@dataclass(frozen=True)
class Result:
    """What a sweep has found."""

    experiment: str
    objective: str
    direction: str
    split: str
    trials: list[dict[str, Any]]
    best: dict[str, Any] | None
    confirmation: Confirmation | None
    importance: dict[str, float]
    files: list[str]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def print_trials(study: Study, plan: Plan, console: Console) -> None:
    """Print the best trials first, and how many were pruned or failed."""
    sign = -1 if plan.objective.maximises else 1
    trials = study.trials()
    scored = sorted((t for t in trials if t.state is TrialState.COMPLETE), key=lambda t: sign * (t.value or 0.0))
    names = [dimension.name for dimension in plan.space.all]
    columns = ["trial", plan.objective.name, *(name.removeprefix("agent.") for name in names)]
    rows = [
        [str(trial.number), f"{trial.value:.4g}", *(_cell(trial.params.get(name)) for name in names)]
        for trial in scored[:_MOST_ROWS]
    ]
    counts = {
        "finished": len(scored),
        "pruned": sum(trial.state is TrialState.PRUNED for trial in trials),
        "failed": sum(trial.state is TrialState.FAIL for trial in trials),
    }
    numbers = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    title = f"{plan.space.experiment}: {len(trials)} trials ({numbers})"
    print_table(title, columns, rows, console, text=columns[2:])


def print_result(study: Study, plan: Plan, result: Result, console: Console) -> None:
    """Print the table, the score that was found, and what the same settings reach under fresh seeds."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    print_trials(study, plan, console)
    if result.importance:
        shares = ", ".join(f"{name.removeprefix('agent.')} {share:.0%}" for name, share in result.importance.items())
        say(f"Importance:  {shares}")
    if result.best is None:
        say("No trial has finished.")
        return
    number, value = result.best["number"], result.best["value"]
    say(f"Found:       {value:.4g}, the best of {len(result.trials)} trials (trial {number})")
    if (again := result.confirmation) is not None:
        values = ", ".join(f"{value:.4g}" for value in again.values)
        low, high = again.interval
        kind = "of whole seeds" if len(again.seeds) > 1 else "of tasks"
        say(f"Trained again: {again.mean:.4g} ({low:.4g} to {high:.4g}, 95 % {kind}) with fresh seeds: {values}")
        say(f"On test tasks: {', '.join(f'{value:.4g}' for value in again.test)} with these seeds")
    say(f"Settings:    {' '.join(result.best['words'])}")
    for file in result.files:
        say(f"{'Recipe' if file.endswith('.py') else 'Picture'}:".ljust(13) + file)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def confirm(
    study: Study,
    plan: Plan,
    best: FrozenTrial,
    number: int,
    engine: Engine,
    show: Callable[[Sequence[Job]], None],
) -> tuple[Confirmation | None, int]:
    """Train the winner's settings with `number` fresh seeds; returns what came of it, and an exit status.

    These are ordinary runs with the experiment's own evaluations, on test tasks at the end, and here on the sweep's
    validation tasks too. None where they did not all finish.
    """
    words = tuple(best.user_attrs["words"])
    name = plan.space.experiment
    experiment = plan.space.settings(words)
    first = max(plan.seeds) + 1
    jobs: list[Job] = []
    for seed in range(first, first + number):
        path = study.folder / "confirmed" / f"{best.number:04}" / f"seed_{seed}"
        seeded = replace(experiment, seed=seed)
        if not (path / "config.json").is_file():
            command = ["metarl", "train", name, *plan.space.fixed, *words, "--seed", str(seed), "--run-dir", str(path)]
            new_run(seeded, name, path, command, ())
        planned = PlannedRun(PlannedExperiment(name), to_config(seeded, name))
        job = Job(planned, path, standing=standing(path, seeded.train.num_iterations))
        job.state = State.FINISHED if job.standing.is_finished else State.WAITING
        jobs.append(job)
    status = execute(jobs, engine, plan.at_once, show)
    if status:
        return None, status
    paths = [job.path for job in jobs if job.path is not None]
    by_task = np.stack([plan.objective.by_task(_validated(path)) for path in paths])  # [K, N]
    interval = interval_over_rows(by_task) if number > 1 else bootstrap_interval(by_task[0])
    values = by_task.mean(1)
    return Confirmation(
        seeds=list(range(first, first + number)),
        values=values.tolist(),
        mean=float(values.mean()),
        interval=interval,
        test=[_test_value(path, plan.objective) for path in paths],
        runs=[str(path) for path in paths],
    ), 0


def _validated(path: Path) -> Scores:
    """The scores [points, N] of a finished run on validation tasks, which are kept in the run."""
    run = Run.open(path)
    experiment = read(run, CodeChoice()).experiment
    scores = validation_scores(path, experiment.train.num_iterations)
    if scores is None:
        trainer = restored(experiment, run, to_train=False)
        run.save_evaluation(validate(trainer), identity(trainer, "latest", VALIDATION_SEED))
        scores = validation_scores(path, experiment.train.num_iterations)
    assert scores is not None
    return scores


def _test_value(path: Path, objective: Objective) -> float:
    evaluation = json.loads((path / "evaluation_test.json").read_bytes())
    return float(objective.by_task(np.array(evaluation["per_task"]["scores"], dtype=float)).mean())


def write_winner(study: Study, plan: Plan, best: FrozenTrial, confirmation: Confirmation | None) -> Path:
    """Write the recipe of the best trial.

    Raises:
        RunError: when the disk refuses it.
    """
    found = f"{best.value:.4g} ({plan.objective.name}, validation tasks, best of {len(study.trials())} trials)"
    how = f"Score: {found}."
    if confirmation is not None:
        low, high = confirmation.interval
        again = f"{confirmation.mean:.4g} ({low:.4g} to {high:.4g})"
        how += f" Trained again with {len(confirmation.seeds)} fresh seeds: {again}."
    title = f"{plan.space.experiment.removesuffix('.py')} with the settings that a sweep found."
    path = study.folder / "winner.py"
    try:
        write_whole(path, recipe_of(plan.space, best.user_attrs["words"], title, how).encode())
    except OSError as error:
        raise RunError(f"cannot write {path}: {reason(error)}") from error
    return path


def result_of(
    study: Study,
    plan: Plan,
    split: str,
    confirmation: Confirmation | None,
    importance: dict[str, float],
    files: Sequence[Path],
) -> Result:
    best = best_of(study, plan)
    return Result(
        experiment=plan.space.experiment,
        objective=plan.objective.name,
        direction="maximise" if plan.objective.maximises else "minimise",
        split=split,
        trials=[_as_json(study, trial) for trial in study.trials()],
        best=None if best is None else _as_json(study, best),
        confirmation=confirmation,
        importance=importance,
        files=[str(path) for path in files],
    )


def _as_json(study: Study, trial: FrozenTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "value": trial.value if trial.state is TrialState.COMPLETE else None,
        "by_seed": trial.user_attrs.get("by_seed", []),
        "params": trial.params,
        "words": trial.user_attrs.get("words", []),
        "failure": trial.user_attrs.get("failure"),
        "seconds": None if trial.duration is None else trial.duration.total_seconds(),
        "runs": str(study.place(trial.number)),
    }
