"""What trains one run of a trial in a process of its own: evaluated on validation tasks, and on no others.

The run is an ordinary one otherwise: `metarl resume` makes the evaluation on test tasks, and `metarl evaluate` others.
As a program it stops and saves once its launcher is gone, as `experiments.workbench.launching.worker` does.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from types import FrameType

from envs.external import CrashedTooOften
from experiments.cli.session import one_line, quiet_threads
from experiments.cli.tables import identity
from experiments.experiment.code_choice import CodeChoice
from experiments.experiment.definition import restored
from experiments.experiment.reading import read
from experiments.workbench.launching.worker import stop_with_launcher
from experiments.workbench.sweeping.objective import VALIDATION_SEED, validate
from metarl.errors import UserError
from metarl.run.directory import Run
from metarl.trainer import Trainer
from metarl.trainer import train as train_to_the_end

IMPOSSIBLE = 3  # the exit status where these settings do not fit together, or diverge
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Stopped(BaseException):
    """A signal asked the training to stop, and an iteration has ended since."""


def train(path: str) -> int:
    """Train the run in a directory to its end from where it is; returns the exit status, 128 + n after signal n."""
    signals: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        signals.append(number)

    def stop_if_asked(trainer: Trainer, metrics: Mapping[str, float]) -> None:
        if signals and trainer.iteration < trainer.config.num_iterations:
            raise _Stopped

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    run = Run.open(path)
    try:
        with run.lock(), quiet_threads():
            experiment = read(run, CodeChoice()).experiment
            if run.has("latest"):
                trainer = restored(experiment, run, to_train=True)
            else:
                try:
                    trainer = experiment.trainer()
                except UserError as error:
                    print(f"metarl: {error}", file=sys.stderr)
                    return IMPOSSIBLE
            run.rewind(trainer.num_samples)
            try:
                evaluation = train_to_the_end(trainer, run, stop_if_asked, validate)
            except _Stopped:
                run.save("latest", trainer.state_dict())
                return 128 + signals[0]
            except (FloatingPointError, CrashedTooOften) as error:
                print(f"metarl: {one_line(error)}", file=sys.stderr)
                return IMPOSSIBLE
            finally:
                run.close()
            run.save_evaluation(evaluation, identity(trainer, "latest", VALIDATION_SEED))
            return 0
    except UserError as error:
        print(f"metarl: {error}", file=sys.stderr)
        return 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    stop_with_launcher()
    sys.exit(train(sys.argv[1]))
