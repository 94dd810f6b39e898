"""Shows how a trained agent adapts to tasks it has not met: metarl evaluate RUN [--split test] [--json]."""

from __future__ import annotations

import json as json_format
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from experiments.arguments import parse
from metarl.errors import UserError

_SIZES = {
    "ways": "ways",
    "shots": "shots",
    "queries": "test_queries",
}  # arguments, and fields of families


@dataclass(frozen=True)
class Arguments:
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]  # the run's directory
    split: Literal["train", "val", "test", "ood"] = "test"  # ood: outside the range of training
    tasks: int = 1000  # how many, each met by one agent that knows nothing of it
    episodes: int | None = None  # in each task, or steps of adaptation; if left out, as many as in training
    ways: int | None = None  # classes in a task, for families of images; if left out, the run's own
    shots: int | None = None  # examples of each class, for families of images; if left out, the run's own
    queries: int | None = None  # of each class, for families of images; if left out, the run's own
    checkpoint: Literal["latest", "best"] = "latest"
    seed: int = 0  # of the tasks and of everything random; one seed, one result
    device: Literal["cpu", "cuda"] | None = None  # if left out, the one it was trained on
    json: bool = False  # print one JSON object and nothing else


def main(argv: list[str]) -> None:
    arguments = parse(Arguments, argv, prog="metarl evaluate", description=__doc__ or "")
    for name in ("tasks", "episodes"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} is {value}; it must be at least 1")
    from envs.third_party import CrashedTooOften
    from experiments.experiment import from_config, restored
    from experiments.plots import plot_run
    from experiments.report import identity, print_evaluation
    from metarl.run import Run

    run = Run.open(arguments.run)
    experiment = from_config(run.config(), run.path)
    if arguments.device is not None:
        experiment = replace(experiment, device=arguments.device)
    sizes = {name: getattr(arguments, name) for name in _SIZES}
    family = _resized(experiment.family, sizes)
    trainer = restored(experiment, run, arguments.checkpoint, to_train=False)
    try:
        evaluation = trainer.evaluate(
            arguments.split, arguments.tasks, arguments.episodes, arguments.seed, family=family
        )
    except (ValueError, FloatingPointError, CrashedTooOften) as error:  # such as a split that the family does not have
        raise UserError(str(error)) from error
    subject = identity(trainer, arguments.checkpoint, arguments.seed)
    if arguments.json:
        print(json_format.dumps({**evaluation.as_json(), **subject}))
        return
    print_evaluation(evaluation)
    num_points = len(evaluation.episodes) - (1 - evaluation.measure.first)
    suffix = "".join(f"_{value}{name}" for name, value in sizes.items() if value is not None)
    name = f"evaluation_{arguments.split}_{arguments.tasks}x{num_points}{suffix}_i{trainer.iteration}_s{arguments.seed}"
    print(f"Saved: {run.save_evaluation(evaluation, subject, name)}")
    print(f"Plot:  {plot_run(run, evaluation, name)}")


def _resized(family: Any, sizes: dict[str, int | None]) -> Any:
    """The family with other numbers of classes and examples in a task; None where none is asked for.

    Raises:
        UserError: when the family has no such numbers, or refuses these.
    """
    given = {name: value for name, value in sizes.items() if value is not None}
    if not given:
        return None
    for name, value in given.items():
        if _SIZES[name] not in {field.name for field in fields(family)}:
            raise UserError(f"--{name} is {value}; {family.name} has no {name} of classes")
    try:
        return replace(family, **{_SIZES[name]: value for name, value in given.items()})
    except ValueError as error:
        raise UserError(str(error)) from error
