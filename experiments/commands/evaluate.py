"""Shows how a trained agent adapts to tasks it has not met: metarl evaluate RUN [--split test] [--json]."""

from __future__ import annotations

import json as json_format
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.arguments import parse
from metarl.errors import UserError


@dataclass(frozen=True)
class Arguments:
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]  # the run's directory
    split: Literal["train", "val", "test", "ood"] = "test"  # ood: outside the range of training
    tasks: int = 1000  # how many, each met by one agent that knows nothing of it
    episodes: int | None = None  # in each task, or steps of adaptation; if left out, as many as in training
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
    trainer = restored(experiment, run, arguments.checkpoint, to_train=False)
    try:
        evaluation = trainer.evaluate(arguments.split, arguments.tasks, arguments.episodes, arguments.seed)
    except (ValueError, FloatingPointError, CrashedTooOften) as error:  # such as a split that the family does not have
        raise UserError(str(error)) from error
    subject = identity(trainer, arguments.checkpoint, arguments.seed)
    if arguments.json:
        print(json_format.dumps({**evaluation.as_json(), **subject}))
        return
    print_evaluation(evaluation)
    num_episodes = trainer.num_episodes if arguments.episodes is None else arguments.episodes
    name = f"evaluation_{arguments.split}_{arguments.tasks}x{num_episodes}_i{trainer.iteration}_s{arguments.seed}"
    print(f"Saved: {run.save_evaluation(evaluation, subject, name)}")
    print(f"Plot:  {plot_run(run, evaluation, name)}")
