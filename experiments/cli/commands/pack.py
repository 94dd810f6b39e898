"""Pack a run's agent into one small file, with its scores and a model card: metarl pack RUN [--out FILE]."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from experiments.cli.arguments import Checkpoint, parse
from experiments.experiment.code_choice import CodeChoice
from metarl.errors import UserError, shell_command

_Code = Annotated[CodeChoice, tyro.conf.arg(name="")]  # whose flags have no prefix


@dataclass(frozen=True)
class Arguments:
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]  # the run's directory
    out: Path | None = None  # the file to write; None: FAMILY_AGENT_sSEED.zip in the working directory
    checkpoint: Checkpoint = "best"  # the checkpoint to pack
    licence: str | None = None  # the licence of the weights, e.g. MIT, for the model card
    tasks: int = 1000  # the number of tasks of each split on which the checkpoint is evaluated for the card
    code: _Code = field(default_factory=CodeChoice)  # the user's code that the run is read with


def main(argv: list[str]) -> None:
    arguments = parse(Arguments, argv, prog="metarl pack", description=__doc__ or "")
    if arguments.tasks < 1:
        raise UserError(f"--tasks is {arguments.tasks}; must be at least 1")
    if arguments.out is not None and arguments.out.suffix != ".zip":
        raise UserError(f"--out is {str(arguments.out)!r}; must end in .zip")
    from experiments.cli.tables import print_evaluation
    from experiments.experiment.packing import pack
    from experiments.experiment.reading import read
    from metarl.run.directory import Run

    run = Run.open(arguments.run)
    reading = read(run, arguments.code)
    experiment = reading.experiment
    out = arguments.out or Path(f"{experiment.family.name}_{experiment.agent_name}_s{experiment.seed}.zip")
    settings = {"checkpoint": arguments.checkpoint, "licence": arguments.licence, "tasks": arguments.tasks}
    packed = pack(run, reading, out, **settings)
    print_evaluation(packed.evaluations["test"])
    print(f"Archive: {packed.path} ({packed.path.stat().st_size / 1e6:.2f} MB, its card in README.md inside)")
    print(f"Try:     {shell_command('metarl', 'evaluate', packed.path)}")
