"""A training under way: what `metarl train`, `metarl resume` and `metarl.train` in Python share."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Self

import torch
from rich.console import Console

from envs.external import CrashedTooOften
from experiments.cli.exploration import can_draw_exploration, draw_exploration
from experiments.cli.output import tolerant_output
from experiments.cli.progress import TrainingProgress
from experiments.cli.recording import record, visible_env
from experiments.cli.tables import identity, print_evaluation
from experiments.experiment.definition import Expected, Experiment, to_config
from experiments.experiment.reading import project_of, record_of
from metarl.errors import EnvironmentFailed, RunError, UserError, shell_command
from metarl.evaluation import Evaluation
from metarl.parallel import agreed, anyone, exchanged, process_count, process_index
from metarl.protocols import KnowsVersions, Split
from metarl.rl.rollouts import raised
from metarl.run.directory import STEP_TAG, Run
from metarl.run.follower import Follower
from metarl.run.kept_files import as_files
from metarl.run.log_writers import DEFAULT_LOG, tensorboard_command
from metarl.trainer import Trainer, train

_EXPLORATION = "exploration.png"
_SECONDS_OF_ONE_SIGNAL = 2.0
_SIGHUP = getattr(signal, "SIGHUP", None)  # not on Windows


class _Stopped(BaseException):
    """A signal asked the training to stop: an iteration has ended since, or there is only its evaluation to stop."""


class VideoRecorder:
    """Records videos of one held-out task during training, without using the training's random streams."""

    def __init__(self, experiment: Experiment[Any, Any], every: int) -> None:
        """every: number of iterations between two videos; 0 for none.

        Raises:
            UserError: when `every` is negative, the family cannot be rendered, or not on this machine.
        """
        if every < 0:
            raise UserError(f"--video-every is {every}; must be 0 (never) or more")
        self._every = every
        if every:
            visible_env(experiment.family)

    def __call__(self, trainer: Trainer, run: Run) -> None:
        """Record the trainer's agent if a video is due; one that fails is reported, and is the last."""
        if not self._every or trainer.iteration % self._every:
            return
        try:
            self._record(trainer, run)
        except Exception as error:  # of a disk, a renderer or a task of the user's own
            self._every = 0
            print(f"\nmetarl: {one_line(error)}; training continues without further videos", file=sys.stderr)

    def _record(self, trainer: Trainer, run: Run) -> None:
        task = trainer.family.sample(1, "test", torch.Generator().manual_seed(0))
        path = run.videos / f"iteration_{trainer.iteration:06}.mp4"
        made = record(trainer.family, trainer.agent, task, trainer.num_points, path, device=trainer.device)
        run.log_animation("meta_test/video", made.animated_image, made.image_size, trainer.num_samples)


def new_run(
    experiment: Experiment[Any, Any],
    name: str,
    run_dir: Path | None,
    command: list[str],
    log: Sequence[str] = DEFAULT_LOG,
    start: Mapping[str, Any] | None = None,
) -> Run:
    """A new run of an experiment of this name, in `run_dir` or below runs/; the first process makes it for all.

    log: the writers of its progress, by name. start: the origin of the weights that it starts from.

    Raises:
        UserError: when the directory is in use or cannot be written, or a writer's package is not installed.
    """
    made = agreed(lambda: _new_run(experiment, name, run_dir, command, log, start) if process_index() == 0 else None)
    path = exchanged(None if made is None else made.path)[0]
    assert path is not None
    return made or Follower(path)


def _new_run(
    experiment: Experiment[Any, Any],
    name: str,
    run_dir: Path | None,
    command: list[str],
    log: Sequence[str],
    start: Mapping[str, Any] | None,
) -> Run:
    config = to_config(experiment, name)
    record, copies = record_of(experiment, name)
    family = experiment.family
    kept = {
        "project": project_of(record),
        "code": as_files(record, copies, 0),
        "start": start,
        "family_versions": family.versions() if isinstance(family, KnowsVersions) else None,
    }
    if run_dir is not None:
        return Run.create_at(run_dir, config, command, log, **kept)
    return Run.create_at(new_path(experiment), config, command, log, **kept)


def new_path(experiment: Experiment[Any, Any]) -> Path:
    """A fresh, empty directory below runs/ for a run of an experiment.

    Raises:
        RunError: when it cannot be made.
    """
    return Run.new_path("runs", experiment.family.name, experiment.agent_name, experiment.seed)


class Results(NamedTuple):
    """The files that a finished training leaves besides its evaluation."""

    plot: Path | None
    exploration: Path | None  # where the family's trajectories can be drawn
    all_made: bool  # if not, what failed was reported


def save_results(trainer: Trainer, run: Run, evaluation: Evaluation, expected: Expected | None = None) -> Results:
    """Write the evaluation at the end of a training, its plot and a figure of how the agent explores.

    expected: what its recipe expects, to be drawn in the plot.

    A figure that fails is reported, and costs none of the others.

    Raises:
        RunError: when the disk refuses the evaluation.
    """
    from experiments.cli.plots import (  # here: matplotlib would delay the start of every training
        plot_run,
        plot_sampled_tasks,
    )

    run.save_evaluation(evaluation, identity(trainer, "latest"))
    path = run.path / _EXPLORATION
    draw = {
        "plot": lambda: plot_run(run, evaluation, expected=expected),
        "figure of sampled tasks": lambda: plot_sampled_tasks(run),
        "figure of exploration": lambda: draw_exploration(
            trainer.family, trainer.agent, trainer.num_points, path, device=trainer.device
        ),
    }
    drawn: dict[str, Path | None] = {}
    for what, make in draw.items():
        try:
            drawn[what] = make()
        except Exception as error:  # of a disk, a renderer or a task of the user's own
            print(f"metarl: there is no {what}: {one_line(error)}", file=sys.stderr)
    return Results(drawn.get("plot"), drawn.get("figure of exploration"), len(drawn) == len(draw))


def has_results(trainer: Trainer, run: Run) -> bool:
    """Whether a training that had its last iteration has also left its last row, its evaluation and its figures."""
    rows = run.progress()
    is_logged = bool(rows) and rows[-1][STEP_TAG] == trainer.num_samples and "meta_test/iqm" in rows[-1]
    figures = ["evaluation_test.png", *([_EXPLORATION] if can_draw_exploration(trainer.family) else [])]
    is_drawn = all((run.path / name).is_file() for name in figures)
    return is_logged and is_drawn and run.evaluated_iteration() == trainer.iteration


def one_line(error: BaseException) -> str:
    """What went wrong, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


@tolerant_output()
def meta_train(experiment: Experiment[Any, Any], trainer: Trainer, run: Run, recorder: VideoRecorder) -> int:
    """Train to the end, print the adaptation curve and where to look further; returns the exit status.

    At Ctrl-C, SIGTERM or SIGHUP the iteration is finished, a checkpoint saved and the status is 128 + the signal's
    number. The evaluation after the last iteration is not finished; a later call makes it.

    Whatever can be saved is saved before anything is printed, and output that fails ends nothing.

    Of several processes, the first one shows, saves and prints; a signal to any of them stops all after the same
    iteration.
    """
    num_iterations, is_first = trainer.config.num_iterations, process_index() == 0
    console = None if is_first else Console(quiet=True)
    with _Signals() as signals, quiet_threads(), TrainingProgress(trainer, run, console) as show:

        def progress(trainer: Trainer, metrics: Mapping[str, float]) -> None:
            show(trainer, metrics)
            if is_first:
                recorder(trainer, run)
            if trainer.iteration < num_iterations and anyone(signals.first is not None):
                raise _Stopped

        def evaluate(trainer: Trainer, split: Split) -> Evaluation:
            with signals.stop_at_once() if trainer.iteration == num_iterations else nullcontext():
                return show.evaluate(trainer, split)

        try:
            evaluation = train(trainer, run, progress, evaluate)
        except _Stopped:
            if trainer.iteration < num_iterations:
                run.save("latest", trainer.state_dict())
                what = f"Saved iteration {trainer.iteration}. Resume with:"
            else:
                what = "Training is complete and saved. Make its evaluation and figures with:"
            if is_first:
                print(f"{what} {shell_command('metarl', 'resume', run.path)}", file=sys.stderr)
            first = next(number for number in exchanged(signals.first) if number is not None)
            return 128 + first
        except (FloatingPointError, CrashedTooOften) as error:
            print(f"metarl: {one_line(error)}; what was saved before is in {run.path}", file=sys.stderr)
            return 1
        except Exception as error:  # of a user's function, or a mistake of ours: both are looked for in the traceback
            if isinstance(error, UserError) and not isinstance(error, EnvironmentFailed):
                raise
            what = one_line(error) if isinstance(error, EnvironmentFailed) else raised(error)
            print(f"metarl: {what}; what was saved before is in {run.path}, {_kept(run, error)}", file=sys.stderr)
            return 1
        finally:
            run.close()
    if not is_first:
        return 0
    try:
        results = save_results(trainer, run, evaluation, experiment.expected)
    finally:
        print_evaluation(evaluation, experiment.expected)
    if trainer.num_diverged:
        what = "environments diverged or crashed; their episodes were truncated and the rows reset"
        print(f"Diverged:    {trainer.num_diverged} {what}")
    print(f"Run:         {run.path}")
    if results.plot is not None:
        print(f"Plot:        {results.plot}")
    if results.exploration is not None:
        print(f"Exploration: {results.exploration}")
    if "tensorboard" in run.log_names:
        print(f"TensorBoard: {tensorboard_command(run.path)}")
    return 0 if results.all_made else 1


def _kept(run: Run, error: BaseException) -> str:
    """Where the traceback of an error is, in words."""
    try:
        return f"the traceback in {run.save_traceback(error).name}"
    except RunError as failure:
        return str(failure)


@contextmanager
def quiet_threads() -> Iterator[None]:
    """TensorBoard's writing thread hands a disk's errors on to `Run.log`, which reports them; it need not do so too."""

    def hook(failure: threading.ExceptHookArgs) -> None:
        if not issubclass(failure.exc_type, OSError):
            before(failure)

    before, threading.excepthook = threading.excepthook, hook
    try:
        yield
    finally:
        threading.excepthook = before


class _Signals:
    """The context in which SIGINT, SIGTERM and SIGHUP are noted; a second one ends the program at once.

    A terminal that vanishes may send SIGHUP more than once, so its second one ends nothing. Where it was to be ignored,
    as under nohup, it is ignored.

    Of several processes, each is sent the terminal's signal and then the same by torchrun: that is one.
    """

    def __init__(self) -> None:
        self.first: int | None = None  # the number of the first signal
        self._noted_at = 0.0
        self._at_once = False

    def __enter__(self) -> Self:
        numbers = {signal.SIGINT, signal.SIGTERM}
        if _SIGHUP is not None and signal.getsignal(_SIGHUP) != signal.SIG_IGN:
            numbers.add(_SIGHUP)
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *failure: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def stop_at_once(self) -> Iterator[None]:
        """The part in which a signal, or one that was noted before it, raises _Stopped."""
        self._at_once = True
        try:
            if self.first is not None:
                raise _Stopped
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.first is not None:
            is_same = process_count() > 1 and time.monotonic() - self._noted_at < _SECONDS_OF_ONE_SIGNAL
            if number == _SIGHUP or is_same:
                return
            raise KeyboardInterrupt
        self.first, self._noted_at = number, time.monotonic()
        if self._at_once:
            raise _Stopped
        if process_index() == 0:
            print("\nStopping after this iteration (Ctrl-C again to quit now without saving).", file=sys.stderr)
