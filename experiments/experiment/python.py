"""MetaRL from Python: the functions that `import metarl` offers, equivalent to the `metarl` command.

import metarl

run = metarl.train("grid_navi/rl2", seed=3, overrides={"train.num_iterations": 50})
curve = metarl.evaluate(run, split="test", tasks=200)
agent = metarl.load(run, checkpoint="best")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

from envs.catalog import with_fields
from experiments.cli.progress import TrainingProgress
from experiments.cli.session import new_run, quiet_threads, save_results
from experiments.experiment.acting import ActingAgent, Predictor
from experiments.experiment.code_choice import CodeChoice
from experiments.experiment.definition import IN_PYTHON, Experiment, from_config, restored
from experiments.experiment.definition import load as load_recipe
from experiments.experiment.evaluating import evaluate_run
from experiments.experiment.names import FAMILIES, FUNCTION_FAMILIES, described, experiment_names, known
from experiments.experiment.opening import open_run
from experiments.experiment.overrides import with_overrides
from experiments.experiment.reading import read
from experiments.experiment.starting import Start
from metarl._lazy import imported
from metarl.errors import UserError
from metarl.evaluation import Evaluation
from metarl.fewshot.episode import FewShotFamily
from metarl.protocols import Split
from metarl.run.directory import Run
from metarl.run.log_writers import DEFAULT_LOG
from metarl.trainer import Trainer
from metarl.trainer import train as train_to_the_end

Progress = Callable[[Trainer, Mapping[str, float]], None]

_experiments: WeakKeyDictionary[Run, Experiment[Any, Any]] = WeakKeyDictionary()  # of runs trained in this process


def train(
    experiment: str | Path | Experiment[Any, Any],
    *,
    seed: int | None = None,
    device: Literal["cpu", "cuda"] | None = None,
    overrides: Mapping[str, Any] | None = None,
    run_dir: str | Path | None = None,
    start_from: Run | str | Path | None = None,
    log: Sequence[str] = DEFAULT_LOG,
    progress: bool | Progress = True,
) -> Run:
    """Meta-train an experiment; returns its run, which the command can resume, evaluate and play as well.

    experiment: a name such as "grid_navi/rl2", the path of a recipe, or an `Experiment`. seed, device: the
    experiment's own where left out. overrides: other values by dotted name, such as {"agent.learning_rate": 3e-4}.
    run_dir: an empty or new directory; if left out, one below runs/. start_from: a run, or the path or the name of one,
    whose weights and normalisers to start from; optimisers and schedules start afresh. log: the writers of the
    progress, e.g. ("tensorboard", "wandb"); csv and json are always written. progress: whether to show a progress bar,
    or what to call with the trainer and its metrics after each iteration.

    Raises:
        UserError: for a mistake in the arguments, in one line.
        FloatingPointError: when training diverges; what was saved before is in the run.
    """
    asked = experiment if isinstance(experiment, Experiment) else load_recipe(str(experiment))
    fields = {"seed": seed, "device": device}
    asked = with_overrides(
        asked, {**{name: value for name, value in fields.items() if value is not None}, **(overrides or {})}
    )
    name = IN_PYTHON if isinstance(experiment, Experiment) else _recipe_name(str(experiment))
    trainer = asked.trainer()
    origin = None
    if start_from is not None:
        start = Start.of(start_from if isinstance(start_from, Run) else open_run(start_from))
        start.give(trainer)
        origin = start.origin
    run = new_run(asked, name, None if run_dir is None else Path(run_dir), ["metarl.train", name], log, origin)
    bar = TrainingProgress(trainer, run) if progress is True else nullcontext(progress or _ignore)
    with run.lock():
        try:
            with quiet_threads(), bar as show:
                evaluate = show.evaluate if isinstance(show, TrainingProgress) else Trainer.evaluate
                evaluation = train_to_the_end(trainer, run, show, evaluate)
        finally:
            run.close()
        save_results(trainer, run, evaluation, asked.expected)
    _experiments[run] = asked
    return run


def evaluate(
    run: Run | str | Path,
    *,
    split: Split = "test",
    tasks: int = 1000,
    points: int | None = None,
    checkpoint: str = "latest",
    seed: int = 0,
    device: Literal["cpu", "cuda"] | None = None,
    overrides: Mapping[str, Any] | None = None,
    deterministic: bool = False,
    recipe: str | Path | Experiment[Any, Any] | None = None,
    trust: bool = False,
    as_trained: bool = False,
    with_current: bool = False,
) -> Evaluation:
    """The adaptation curve of a run's agent on unseen tasks; `.to_frame()` makes a pandas DataFrame of it.

    points: of the curve: episodes of each task, or steps of adaptation; None: as many as in training. checkpoint:
    "latest", "best", or "iteration_N" where the training kept it (`TrainConfig.keep_every`). overrides:
    fields of the family or the agent with other values than in training. deterministic: act by the policy's mode. One
    seed gives one result. Nothing is written.
    recipe, trust, as_trained, with_current: the code of a run that needs some of the user's, as of `load`.

    Raises:
        UserError: for a mistake in the arguments, or a run that cannot be read, in one line.
    """
    run, trained = _opened(run, device, recipe, CodeChoice(None, trust, as_trained, with_current))
    other = sorted(name for name in overrides or {} if name.split(".")[0] not in ("family", "agent"))
    if other:
        raise UserError(f"overrides give {other[0]}; an evaluation takes those of family and agent")
    asked = with_overrides(trained, overrides or {})
    settings: dict[str, Any] = {"split": split, "tasks": tasks, "points": points, "seed": seed}
    return evaluate_run(run, trained, asked, checkpoint=checkpoint, deterministic=deterministic, **settings).evaluation


def load(
    run: Run | str | Path,
    *,
    checkpoint: str = "latest",
    device: Literal["cpu", "cuda"] = "cpu",
    deterministic: bool = False,
    seed: int = 0,
    recipe: str | Path | Experiment[Any, Any] | None = None,
    trust: bool = False,
    as_trained: bool = False,
    with_current: bool = False,
) -> Any:
    """A run's agent, to act in a loop of your own (an `ActingAgent`), or its few-shot learner (a `Predictor`).

    checkpoint: as of `evaluate`. deterministic: act by the policy's mode. seed: seed of all randomness in acting. For a
    run that needs code of the user's, recipe: the recipe to use in place of the one that the run names. trust: run code
    that the run names or keeps, though this user has never run it. as_trained: use the copies that the run keeps.
    with_current: continue with files that have changed since training.

    Raises:
        UserError: when there is no such run or checkpoint, or it cannot be read.
    """
    run, experiment = _opened(run, device, recipe, CodeChoice(None, trust, as_trained, with_current))
    trainer = restored(experiment, run, checkpoint, to_train=False)
    if isinstance(experiment.family, FewShotFamily):
        return Predictor(trainer)
    return ActingAgent(trainer, deterministic=deterministic, seed=seed)


def list_experiments() -> dict[str, str]:
    """All experiments that can be trained by name, each with a description."""
    return described("experiments")


def make_family(name: str, **fields: Any) -> Any:
    """A task family by name, with other values for some of its fields: make_family("grid_navi", size=7).

    Raises:
        UserError: for an unknown name, an unknown field or a value that is not allowed.
    """
    families = FAMILIES | FUNCTION_FAMILIES
    family = imported(families[known("task family", name, families)])
    try:
        return with_fields(name, family, fields)
    except ValueError as error:
        raise UserError(str(error)) from error


def _opened(
    run: Run | str | Path,
    device: Literal["cpu", "cuda"] | None,
    recipe: str | Path | Experiment[Any, Any] | None,
    choice: CodeChoice,
) -> tuple[Run, Experiment[Any, Any]]:
    run = run if isinstance(run, Run) else open_run(run)
    if isinstance(recipe, Experiment):
        experiment = from_config(run.config(), run.path, lambda: recipe, any_environment=True)
    elif run in _experiments and choice == CodeChoice() and recipe is None:
        experiment = _experiments[run]
    else:
        experiment = read(run, replace(choice, recipe=None if recipe is None else str(recipe))).experiment
    return run, experiment if device is None else replace(experiment, device=device)


def _recipe_name(name: str) -> str:
    """The name that a run's config keeps: short family names are spelt out."""
    if name.endswith(".py"):
        return name
    return known("experiment", name, experiment_names())


def _ignore(trainer: Trainer, metrics: Mapping[str, float]) -> None:
    """No progress is shown."""
