"""Write what a run's agent does in training tasks as learning histories: metarl histories RUN --out DIR [--tasks 500].

RUN is a run's directory, the archive of a trained agent, or the name of one that comes with MetaRL, e.g. grid_navi/rl2.
DIR becomes a Minari dataset. `--agent.histories DIR` trains algorithm distillation (agent `ad`) on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.cli.arguments import Checkpoint, check_seed, parse
from experiments.experiment.code_choice import CodeChoice
from metarl.errors import UserError, shell_command

_Code = Annotated[CodeChoice, tyro.conf.arg(name="")]  # whose flags have no prefix


@dataclass(frozen=True)
class Arguments:
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]  # the run
    out: Path  # the folder to write into
    tasks: int = 500  # the number of tasks
    episodes: int | None = None  # the number of episodes, or points of the curve, per task; None: as in training
    split: Literal["train", "val", "test", "ood"] = "train"  # the tasks' split; only training tasks are written
    checkpoint: Checkpoint = "latest"  # the checkpoint that acts; an archive has only one
    seed: int = 0  # the seed of the tasks and of all randomness
    code: _Code = field(default_factory=CodeChoice)  # the user's code that the run is read with


def main(argv: list[str]) -> None:
    arguments = parse(Arguments, argv, prog="metarl histories", description=__doc__ or "")
    check_seed(arguments.seed)
    for name in ("tasks", "episodes"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} is {value}; must be at least 1")
    from metarl.rl.history_files import check_split_of_histories

    check_split_of_histories(arguments.split)
    from experiments.experiment.definition import restored
    from experiments.experiment.opening import open_run
    from experiments.experiment.reading import read
    from experiments.workbench.histories import record_histories

    run = open_run(arguments.run)
    experiment = replace(read(run, arguments.code).experiment, device="cpu")
    trainer = restored(experiment, run, run.checkpoint(arguments.checkpoint), to_train=False)
    num_points = trainer.num_points if arguments.episodes is None else arguments.episodes
    num_histories, num_episodes = record_histories(trainer, arguments.out, arguments.tasks, num_points, arguments.seed)
    print(f"Saved: {arguments.out} ({num_histories:,} histories, {num_episodes:,} episodes)")
    print(
        "Algorithm distillation learns from them in the same family: metarl train EXPERIMENT "
        f"{shell_command('--agent.histories', arguments.out)}"
    )
