"""Resume a run from its last checkpoint: metarl resume RUN."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from experiments.cli.arguments import parse
from experiments.experiment.code_choice import CodeChoice
from metarl.errors import UserError, shell_command

if TYPE_CHECKING:
    from experiments.experiment.definition import Experiment
    from experiments.experiment.reading import ReadRun
    from metarl.run.directory import Run
    from metarl.trainer import Trainer

_LogName = Literal["tensorboard", "csv", "json", "wandb", "mlflow", "trackio"]  # as in metarl/run/log_writers.py
_Log = tuple[_LogName, ...] | None
_Code = Annotated[CodeChoice, tyro.conf.arg(name="")]  # whose flags have no prefix


@dataclass(frozen=True)
class Arguments:
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]  # the run's directory
    device: Literal["cpu", "cuda"] | None = None  # the device to go on with; None: the run's own
    num_iterations: int | None = None  # the total number of iterations, to train for longer; None: the run's own
    log: _Log = None  # the writers of the progress; None: the run's own, without trackers if it is not yours
    video_every: int = 0  # the number of iterations between two videos of a trial; 0: no videos
    processes: int = 1  # the number of processes that share the tasks of an iteration, whatever it was before
    max_restarts: int = 3  # the number of times that lost processes start again from the checkpoint
    code: _Code = field(default_factory=CodeChoice)  # the user's code that the run is read with


def main(argv: list[str]) -> int:
    arguments = parse(Arguments, argv, prog="metarl resume", description=__doc__ or "")
    from experiments.cli.processes import check_processes, launch
    from experiments.cli.session import VideoRecorder, has_results, meta_train
    from experiments.experiment.definition import restored
    from experiments.experiment.reading import keep_new_code, read
    from metarl.parallel import agreed, exchanged, is_launched, join, process_index
    from metarl.run.directory import Run
    from metarl.run.follower import Follower

    check_processes(arguments.processes, arguments.max_restarts)
    run = Run.open(arguments.run)
    if run.is_packed:
        raise UserError(f"{run.path} is an archive, which cannot be resumed; metarl train EXPERIMENT --from it")
    reading = read(run, arguments.code)
    experiment = reading.experiment
    if arguments.num_iterations is not None:
        if arguments.num_iterations <= experiment.train.num_iterations:
            raise UserError(
                f"--num-iterations is {arguments.num_iterations}; "
                f"must be more than the run's own {experiment.train.num_iterations}"
            )
        try:
            experiment = replace(experiment, train=replace(experiment.train, num_iterations=arguments.num_iterations))
        except ValueError as error:
            raise UserError(f"--{str(error).replace('_', '-', 1)}") from error
    moves = arguments.device not in (None, experiment.device)
    if moves:
        experiment = replace(experiment, device=arguments.device)
    recorder = VideoRecorder(experiment, arguments.video_every)
    if is_launched():
        join(experiment.device)
    elif arguments.processes > 1:
        return launch(["resume", *argv], arguments.processes, arguments.max_restarts, run.path)
    if process_index() > 0:
        run = Follower(run.path)
    _choose_log(run, reading, arguments.log)
    with run.lock():

        def made() -> Trainer:
            if not _is_saved(run, experiment):
                return experiment.trainer()
            return restored(experiment, run, to_train=True, other_device=moves)

        trainer = agreed(made)
        is_complete = trainer.iteration >= experiment.train.num_iterations
        if is_complete and exchanged(has_results(trainer, run))[0]:
            if process_index() > 0:
                return 0
            print(
                f"This run is finished: {trainer.iteration} iterations. "
                f"Evaluate it with: {shell_command('metarl', 'evaluate', run.path)}; "
                f"train it on with: {shell_command('metarl', 'resume', run.path)} --num-iterations N"
            )
            return 0
        if reading.has_changed or reading.is_moved:
            keep_new_code(run, reading, trainer.iteration)
        if moves:
            run.save("latest", trainer.state_dict())  # before the config names the device that its streams are of
        if moves or arguments.num_iterations is not None:
            config = run.config()
            train = {**config["train"], "num_iterations": experiment.train.num_iterations}
            run.rewrite_config({**config, "device": experiment.device, "train": train})
        run.rewind(trainer.num_samples)
        if process_index() == 0:
            _say(_situation(trainer, run, arguments.device if moves else None))
        return meta_train(experiment, trainer, run, recorder)


def _choose_log(run: Run, reading: ReadRun, asked: Sequence[str] | None) -> None:
    """Write to what is asked for; or else to what the run names, but to no tracker for a run of somebody else's.

    Raises:
        UserError: when a writer's package is not installed.
    """
    from experiments.experiment.trust import is_signed
    from metarl.run.log_writers import EXTRAS, check_log

    if asked is not None:
        check_log(asked)
        run.log_to(asked)
        return
    trackers = [name for name in run.log_names if name in EXTRAS]
    if trackers and not (reading.kept is not None and is_signed(reading.kept.record)):
        run.log_to([name for name in run.log_names if name not in EXTRAS])
        names = " and ".join(trackers)
        _say(f"Nothing is sent to {names}: {run.path} was not trained by you. Ask for it with --log {trackers[0]}")


def _situation(trainer: Trainer, run: Run, new_device: str | None) -> str:
    """Where the run goes on, in a line."""
    if trainer.iteration >= trainer.config.num_iterations:
        return f"All {trainer.iteration} iterations are done: the evaluation and figures of {run.path} are made again."
    if trainer.iteration == 0:
        where = f"No iteration of {run.path} was saved: it starts from the beginning"
    else:
        where = f"{run.path} goes on after iteration {trainer.iteration}"
    if new_device is None:
        return f"{where}."
    return f"{where}, now on {new_device}: from here on it is not bit for bit what it would have been."


def _say(text: str) -> None:
    from experiments.cli.output import tolerant_output

    with tolerant_output():
        print(text, file=sys.stderr)


def _is_saved(run: Run, experiment: Experiment[Any, Any]) -> bool:
    """Whether there is a checkpoint to go on from; without one, the run must have been stopped before its first.

    Raises:
        UserError: when there is none although the run has logged more than a run without one can have.
    """
    if run.has("latest"):
        return True
    origin = run.meta().get("from")
    if origin is not None:
        raise UserError(
            f"{run.path} was stopped before it had the weights to start from; train anew with: metarl train"
        )
    logged, every = len(run.progress()), experiment.train.checkpoint_every
    if logged > every:
        raise UserError(
            f"{run.path} has logged {logged} iterations, and there is no checkpoint at "
            f"{run.path / 'checkpoints' / 'latest.pt'} to go on from; train anew with: metarl train"
        )
    return False
