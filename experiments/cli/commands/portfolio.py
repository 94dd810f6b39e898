"""Choose among trained learners for each task: metarl portfolio RUN... [--tasks 400] [--shots 5] [--json].

Few-shot learners are chosen by held-out parts of each task's support, together with the number of adaptation steps;
agents by their return in the first episodes. How far to trust these is learned on training tasks. Tasks come in equal
parts from the families of the runs. The choice is scored by the share that it closes of the gap between the single best
candidate and the best one in hindsight.
"""

from __future__ import annotations

import json as json_format
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from experiments.cli.arguments import Checkpoint, check_seed, parse
from experiments.experiment.code_choice import CodeChoice
from metarl.errors import UserError

if TYPE_CHECKING:
    from experiments.workbench.insight.portfolio import Choice

_Runs = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
_Code = Annotated[CodeChoice, tyro.conf.arg(name="")]  # whose flags have no prefix


@dataclass(frozen=True)
class Arguments:
    runs: _Runs  # directories of runs, archives, or names of trained agents
    split: Literal["val", "test", "ood"] = "test"  # the split of the tasks for which candidates are chosen
    tasks: int = 400  # the number of tasks
    shots: int | None = None  # the number of examples per task or class; None: the smallest in any family
    first: int = 1  # the number of first episodes by whose return an agent is chosen
    checkpoint: Checkpoint = "latest"  # the checkpoint of each run; an archive has only one
    seed: int = 0  # the seed of the tasks and of all randomness
    json: bool = False  # whether to print one JSON object and nothing else
    code: _Code = field(default_factory=CodeChoice)  # the user's code that the runs are read with


def main(argv: list[str]) -> None:
    arguments = parse(Arguments, argv, prog="metarl portfolio", description=__doc__ or "")
    check_seed(arguments.seed)
    for name, least in (("tasks", 2), ("shots", 1), ("first", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise UserError(f"--{name} is {value}; must be at least {least}")
    if not arguments.runs:
        raise UserError("which runs? metarl portfolio RUN RUN...")
    from experiments.experiment.definition import restored
    from experiments.experiment.opening import open_run
    from experiments.experiment.reading import read
    from experiments.workbench.insight.portfolio import choose, scored

    trainers = []
    for run in map(open_run, arguments.runs):
        experiment = replace(read(run, arguments.code).experiment, device="cpu")
        trainers.append(restored(experiment, run, run.checkpoint(arguments.checkpoint), to_train=False))
    names = [str(path) for path in arguments.runs]
    settings: dict[str, Any] = {"shots": arguments.shots, "first_points": arguments.first}
    try:
        trained = scored(trainers, names, "train", arguments.tasks, seed=arguments.seed + 1, **settings)
        tested = scored(trainers, names, arguments.split, arguments.tasks, seed=arguments.seed, **settings)
    except (ValueError, FloatingPointError) as error:
        raise UserError(str(error)) from error
    choice = choose(trained, tested, trainers[0].source.measure)
    if arguments.json:
        print(json_format.dumps(choice.as_json()))
    else:
        _print(choice, trainers[0].source.measure.name, arguments)


def _print(choice: Choice, measure: str, arguments: Arguments) -> None:
    from rich.console import Console

    from experiments.cli.tables import print_table

    rows = [
        (name, f"{mean:.4g}", f"{100 * share:.0f} %")
        for name, mean, share in zip(choice.names, choice.means, choice.shares, strict=True)
    ]
    title = f"{measure} on {arguments.tasks} {arguments.split} tasks, and how often each candidate was chosen"
    print_table(title, ("candidate", measure, "chosen"), rows, Console(), text=("candidate",))
    print(f"Single best (on training tasks): {choice.single_mean:.4g}, {choice.single}")
    print(f"Chosen for each task:            {choice.chosen_mean:.4g}")
    print(f"Best in hindsight:               {choice.best_mean:.4g}")
    print(f"Weight of a task's own evidence: {choice.weight:g}, the best on training tasks")
    if choice.best_mean == choice.single_mean:
        print("There is no gap to close: one candidate is the best in every task.")
        return
    if math.isnan(choice.closed):
        print("The share of the gap closed is not known: the single best diverges on a test task.")
        return
    low, high = choice.closed_ci95
    print(f"Share of the gap closed:         {choice.closed:.2f} ({low:.2f} to {high:.2f})")
