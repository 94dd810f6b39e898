"""Meta-train an agent: metarl train EXPERIMENT [--seed N] [--device cpu|cuda] [--run-dir D] [any other field]."""

from __future__ import annotations

from dataclasses import make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from experiments.cli.arguments import parse, with_help
from experiments.experiment.names import described, experiment_names, in_columns, known
from metarl.errors import UserError

if TYPE_CHECKING:
    from experiments.experiment.starting import Start
    from metarl.trainer import Trainer

_From = Annotated[
    Path | None,
    tyro.conf.arg(name="from", help="the run, archive or trained agent whose weights to start from; None: fresh ones"),
]
_USAGE = """usage: metarl train EXPERIMENT [--seed N] [--device cpu|cuda] [--run-dir D] [--from RUN]
                    [--processes R] [--PART.FIELD VALUE ...]

EXPERIMENT is one of these, or the path of your own recipe (a .py file):
{experiments}

  --seed N              the seed of all randomness; one seed gives one run, bit for bit on a CPU with the
                        same versions, processor and number of threads
  --device cpu|cuda     the device of environments and networks
  --run-dir D           the directory of this run; if left out: runs/<family>/<agent>/<time>_s<seed>
  --from RUN            start from what another run has learned: its directory, an archive or a trained agent's name;
                        optimisers and schedules start afresh
  --processes R         share the tasks of an iteration among R processes; the numbers are those of one process
  --video-every N       record a video of a trial after every N iterations, also in TensorBoard; 0: never
  --log NAME ...        write the progress to tensorboard csv json (the default), wandb, mlflow or trackio; csv and
                        json are always written
  --family.FIELD VALUE  --agent.FIELD VALUE  --train.FIELD VALUE
                        any field of the experiment; its fields: metarl train EXPERIMENT --help
"""


def main(argv: list[str]) -> int:
    """Parse what is before the experiment's own fields without importing torch, then train."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_USAGE.format(experiments="\n".join(in_columns(described("experiments")))))
        if not argv:
            raise UserError("which experiment? metarl train EXPERIMENT")
        return 0
    name, rest = _split(argv)
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise UserError(f"there is no recipe at {name}: no such file")
    else:
        name = known("experiment", name, experiment_names())
    return _train(name, rest, command=["metarl", "train", *argv])


def _choices(experiment: Any) -> str:
    """The help on the fields that hold one of several configurations."""
    from experiments.experiment.variants import variants

    lines = [
        f"--{part}.{name.replace('_', '-')} {{{','.join(allowed)}}}"
        for part in ("agent", "train")
        for name, allowed in variants(getattr(experiment, part)).items()
    ]
    return "\n".join(f"{line} chooses among configurations; its fields are listed below" for line in lines) or " "


def _split(argv: list[str]) -> tuple[str, list[str]]:
    if argv[0].startswith("-"):
        raise UserError(f"the experiment comes first: metarl train EXPERIMENT {argv[0]} ...")
    return argv[0], argv[1:]


def _train(name: str, argv: list[str], command: list[str]) -> int:
    from experiments.cli.commands.resume import main as resume
    from experiments.cli.processes import RESTARTS, check_processes, goes_on, launch
    from experiments.cli.session import VideoRecorder, meta_train, new_path, new_run  # here, as all that needs torch
    from experiments.experiment.definition import argument_type, load
    from experiments.experiment.opening import open_run
    from experiments.experiment.starting import Start
    from experiments.experiment.variants import experiment_with_variants
    from metarl.parallel import agreed, is_launched, join
    from metarl.run.log_writers import DEFAULT_LOG, LogName

    recipe, argv = experiment_with_variants(load(name), argv)
    fields = [
        ("experiment", argument_type(recipe)),
        ("run_dir", with_help(Path | None, "the directory of this run; None: runs/<family>/<agent>/<time>_s<seed>")),
        ("video_every", with_help(int, "the number of iterations between two videos of a trial; 0: no videos")),
        ("start_from", _From),
        ("log", with_help(tuple[LogName, ...], "the writers of the progress; csv and json are always written")),
        ("processes", with_help(int, "the number of processes that share the tasks of an iteration")),
        ("max_restarts", with_help(int, "the number of times that lost processes start again from the checkpoint")),
    ]
    arguments_class: Any = make_dataclass("Arguments", fields)
    prog, default = f"metarl train {name}", arguments_class(recipe, None, 0, None, DEFAULT_LOG, 1, RESTARTS)
    arguments = parse(arguments_class, argv, prog=prog, description=_choices(recipe), default=default)
    experiment = arguments.experiment
    check_processes(arguments.processes, arguments.max_restarts)
    recorder = VideoRecorder(experiment, arguments.video_every)
    if arguments.run_dir is not None and goes_on(arguments.run_dir):
        return resume([str(arguments.run_dir), "--video-every", str(arguments.video_every)])
    if is_launched():
        join(experiment.device)
    elif arguments.processes > 1:
        path = arguments.run_dir or new_path(experiment)
        own = [] if arguments.run_dir is not None else ["--run-dir", str(path)]
        return launch([*command[1:], *own], arguments.processes, arguments.max_restarts, path)

    def made() -> tuple[Trainer, Start | None]:
        trainer = experiment.trainer()
        start = None if arguments.start_from is None else Start.of(open_run(arguments.start_from))
        if start is not None:
            start.give(trainer)
        return trainer, start

    trainer, start = agreed(made)
    origin = None if start is None else start.origin
    run = new_run(experiment, name, arguments.run_dir, command, arguments.log, origin)
    with run.lock():
        return meta_train(experiment, trainer, run, recorder)
