"""Probe what a learner's state tells of the task, point by point: metarl probe RUN [--tasks 1000] [--json].

RUN is a run's directory, the archive of a trained agent, or the name of one that comes with MetaRL, e.g. grid_navi/rl2.
Half of the tasks teach a linear probe each parameter of the task from the state (memory, belief, adapted parameters);
the other half tests it. The control learns from shuffled tasks, and so can know nothing.
"""

from __future__ import annotations

import json as json_format
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from experiments.cli.arguments import Checkpoint, check_seed, parse
from experiments.experiment.code_choice import CodeChoice
from metarl.errors import UserError

if TYPE_CHECKING:
    from experiments.workbench.insight.probing import Probing
    from metarl.run.directory import Run

_Points = Annotated[int | None, tyro.conf.arg(aliases=("--episodes",))]  # an agent's points are episodes
_Code = Annotated[CodeChoice, tyro.conf.arg(name="")]  # whose flags have no prefix


@dataclass(frozen=True)
class Arguments:
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]  # the run
    split: Literal["train", "val", "test", "ood"] = "test"  # the tasks' split
    tasks: int = 1000  # the number of tasks; half of them are held out
    points: _Points = None  # the number of points: episodes, or steps of adaptation; None: as in training
    checkpoint: Checkpoint = "latest"  # the checkpoint to probe; an archive has only one
    seed: int = 0  # the seed of the tasks and of all randomness
    json: bool = False  # whether to print one JSON object and nothing else
    code: _Code = field(default_factory=CodeChoice)  # the user's code that the run is read with


def main(argv: list[str]) -> None:
    arguments = parse(Arguments, argv, prog="metarl probe", description=__doc__ or "")
    check_seed(arguments.seed)
    if arguments.points is not None and arguments.points < 1:
        raise UserError(f"--points is {arguments.points}; must be at least 1")
    if arguments.tasks < 1:
        raise UserError(f"--tasks is {arguments.tasks}; must be at least 1")
    from envs.external import CrashedTooOften
    from experiments.experiment.opening import open_run
    from experiments.workbench.insight.probing import probe_states
    from experiments.workbench.insight.states import task_states

    run = open_run(arguments.run)
    trainer, identity = _opened(run, arguments)
    num_points = trainer.num_points if arguments.points is None else arguments.points
    try:
        states = task_states(trainer, arguments.split, arguments.tasks, num_points, arguments.seed)
    except (ValueError, FloatingPointError, CrashedTooOften) as error:
        raise UserError(str(error)) from error
    points = _points(num_points)
    probing = probe_states(states, points, arguments.seed)
    content = {**identity, **probing.as_json()}
    if arguments.json:
        print(json_format.dumps(content))
        return
    name = f"probe_{arguments.split}_{arguments.tasks}x{num_points}_i{trainer.iteration}_s{arguments.seed}"
    _print(probing, identity)
    print(f"Saved: {run.save_json(name, content)}")
    from experiments.workbench.insight.pictures import attention, distances, scatter

    print(f"States: {run.save_picture(f'{name}_states', scatter(states, points))}")
    if states.attention is not None:
        print(f"Attention: {run.save_picture(f'{name}_attention', attention(states.attention, states.point))}")
    picture, correlation = distances(states, points[-1])
    along = "" if correlation is None else f" (correlation with distances of the parameter: {correlation:.2f})"
    print(f"Distances: {run.save_picture(f'{name}_distances', picture)}{along}")


def _opened(run: Run, arguments: Arguments) -> tuple[Any, dict[str, Any]]:
    """The trainer of a run on the CPU, and what identifies the probing of it."""
    from experiments.cli.tables import identity
    from experiments.experiment.definition import restored
    from experiments.experiment.reading import read

    reading = read(run, arguments.code)
    checkpoint = run.checkpoint(arguments.checkpoint)
    trainer = restored(replace(reading.experiment, device="cpu"), run, checkpoint, to_train=False)
    subject = {"family": trainer.family.name, "agent": trainer.agent_name, "split": arguments.split}
    return trainer, {**subject, **identity(trainer, checkpoint, arguments.seed, reading.code)}


def _points(num_points: int) -> list[int]:
    """The points to probe: all if there are few, else 0, 1, 2, 5, 10, 20, ..."""
    from metarl.evaluation import Measure, logged_points

    return logged_points(Measure(first=0), num_points + 1)


def _print(probing: Probing, identity: dict[str, Any]) -> None:
    from rich.console import Console

    from experiments.cli.tables import print_table

    title = (
        f"{identity['family']}, {identity['agent']}: what {probing.state_size:,} numbers of state tell on "
        f"{probing.num_held_out:,} held-out {identity['split']} tasks, learned on {probing.num_fitted:,}"
    )
    print_table(title, probing.columns, probing.rows, Console(), text=("parameter",))
