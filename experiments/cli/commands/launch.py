"""Train many runs at once: metarl launch EXPERIMENT... [--seeds 5 | --seeds 0,3,7] [--jobs N] [any other field].

An EXPERIMENT is a name, the path of a recipe, or that of a plan: a .py file with a list named `experiments`. The same
command again skips runs that are finished and resumes those that were interrupted, by whatever it was.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from experiments.cli.arguments import own_words, parse
from metarl.errors import UserError

if TYPE_CHECKING:
    from experiments.workbench.launching.launcher import Job

_Names = Annotated[
    tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="EXPERIMENT", help_behavior_hint="(one or more)")
]
_USAGE = "metarl launch EXPERIMENT... [--seeds N] [--jobs N] [--PART.FIELD VALUE ...]"


@dataclass(frozen=True)
class Arguments:
    experiments: _Names  # the names of experiments, or paths of recipes or plans
    seeds: str | None = None  # the number of seeds, or a list such as 0,3,7; None: the experiments' own seed
    jobs: int | None = None  # the number of runs at once; None: as many as the CPUs or GPUs allow
    executor: Literal["local", "slurm", "ray"] = "local"  # executor of the runs; slurm and ray are extras
    threads_per_run: int = 1  # the number of threads of each run
    dry_run: bool = False  # whether to print the plan and start no run


def main(argv: list[str]) -> int:
    own, overrides = own_words(argv, Arguments)
    if not argv:
        raise UserError(f"which experiments? {_USAGE}")
    arguments = parse(Arguments, own, prog="metarl launch", description=__doc__ or "")
    if not arguments.experiments:
        raise UserError(f"the experiments come first: {_USAGE}")
    for name in ("jobs", "threads_per_run"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}; must be at least 1")
    from rich.console import Console

    from experiments.workbench.launching.board import Board, table
    from experiments.workbench.launching.engines import ENGINES
    from experiments.workbench.launching.launcher import execute, jobs_of
    from experiments.workbench.launching.plan import parse_seeds, planned_runs

    seeds = None if arguments.seeds is None else parse_seeds(arguments.seeds)
    jobs = jobs_of(planned_runs(arguments.experiments, seeds, overrides))
    gpus = _num_gpus() if any(job.planned.config["device"] == "cuda" for job in jobs) else 0
    at_once = arguments.jobs or _num_at_once(arguments, gpus, len(jobs))
    if arguments.dry_run:
        Console().print(table(jobs))
        print(f"{at_once} at once, threads per run: {arguments.threads_per_run}")
        return 0
    engine = ENGINES[arguments.executor](arguments.threads_per_run, gpus)
    with Board() as board:
        status = execute(jobs, engine, at_once, board)
    _conclude(jobs, status, argv)
    return status


def _num_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _num_at_once(arguments: Arguments, gpus: int, num_runs: int) -> int:
    """As many as fit on this machine's processors or GPUs; all of them, where an engine has its own machines."""
    if arguments.executor != "local":
        return max(num_runs, 1)
    from envs.simulators.cpu_count import available_cpus

    return gpus or max(1, available_cpus() // arguments.threads_per_run)


def _conclude(jobs: Sequence[Job], status: int, argv: Sequence[str]) -> None:
    """Print what failed, and the command that resumes unfinished runs."""
    from experiments.workbench.launching.board import line
    from experiments.workbench.launching.launcher import State

    if sys.stdout.isatty():  # elsewhere the lines were printed when it happened
        for job in jobs:
            if job.state is State.FAILED:
                print(line(job))
    if status:
        print(f"Go on with: {shlex.join(['metarl', 'launch', *argv])}", file=sys.stderr)
