"""Look for self-deception in what a run has learned: metarl diagnose RUN [--tasks 200] [--json].

Meta-overfitting, memorisation, shortcuts, interference between tasks, forgetting and reward hacking: a verdict in one
line for each, and the evidence under it. RUN is a run's directory, the archive of a trained agent, or the name of one
that comes with MetaRL, e.g. grid_navi/rl2.
"""

from __future__ import annotations

import json as json_format
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from experiments.cli.arguments import Checkpoint, check_seed, parse
from experiments.experiment.code_choice import CodeChoice
from metarl.errors import UserError

if TYPE_CHECKING:
    from experiments.workbench.insight.findings import Finding

_Code = Annotated[CodeChoice, tyro.conf.arg(name="")]  # whose flags have no prefix
_LEAST_TASKS = 10


@dataclass(frozen=True)
class Arguments:
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]  # the run
    tasks: int = 200  # the number of tasks for each detector
    pair_tasks: int = 12  # the number of tasks that are compared in pairs, by gradients and by transfer
    copies: int = 8  # the number of rows of each of these tasks for a gradient, for agents with one row per task
    checkpoint: Checkpoint = "latest"  # the checkpoint to diagnose; an archive has only one
    seed: int = 0  # the seed of the tasks and of all randomness
    json: bool = False  # whether to print one JSON object and nothing else
    code: _Code = field(default_factory=CodeChoice)  # the user's code that the run is read with


def main(argv: list[str]) -> None:
    arguments = parse(Arguments, argv, prog="metarl diagnose", description=__doc__ or "")
    check_seed(arguments.seed)
    for name, least in (("tasks", _LEAST_TASKS), ("pair_tasks", 2), ("copies", 1)):
        if getattr(arguments, name) < least:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; must be at least {least}")
    from experiments.experiment.opening import open_run
    from experiments.experiment.reading import read
    from experiments.workbench.insight.diagnosing import diagnosis_of

    run = open_run(arguments.run)
    reading = read(run, arguments.code)
    checkpoint = run.checkpoint(arguments.checkpoint)
    sizes = {"num_tasks": arguments.tasks, "pair_tasks": arguments.pair_tasks, "copies": arguments.copies}
    diagnosis = diagnosis_of(run, reading.experiment, checkpoint=checkpoint, seed=arguments.seed, **sizes)
    found = []
    for finding in diagnosis.findings():
        found.append(finding)
        if not arguments.json:
            _print(finding)
    content: dict[str, Any] = {
        "family": reading.experiment.family.name,
        "agent": reading.experiment.agent_name,
        "checkpoint": checkpoint,
        "seed": arguments.seed,
        **sizes,
        "code": reading.code,
        "findings": [finding.as_json() for finding in found],
    }
    if arguments.json:
        print(json_format.dumps(content))
        return
    name = f"diagnosis_{checkpoint}_s{arguments.seed}"
    print(f"Saved: {run.save_json(name, content)}")
    matrix = next((finding.matrix for finding in found if finding.matrix is not None), None)
    if matrix is not None:
        from experiments.workbench.insight.pictures import transfer

        print(f"Transfer matrix: {run.save_picture(f'{name}_transfer', transfer(matrix))}")


def _print(finding: Finding) -> None:
    from rich.console import Console

    from experiments.cli.tables import print_table

    console = Console()
    sign = {"fine": "ok", "warning": "WARNING", "unknown": "unknown"}[finding.level]
    console.print(f"{finding.detector}: {sign}: {finding.verdict}", markup=False, highlight=False, soft_wrap=True)
    for one in finding.evidence:
        print_table(one.title, one.columns, one.rows, console, text=one.columns[:1])
    print()
