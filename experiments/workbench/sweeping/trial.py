"""A trial under way: its runs, one for each seed, and what its sampler and pruner learn of them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import optuna
from optuna.trial import TrialState

from experiments.cli.session import new_run
from experiments.experiment.definition import Experiment
from experiments.workbench.launching.engines import Engine, Task
from experiments.workbench.launching.launcher import how
from experiments.workbench.launching.standing import is_locked, last_lines, output_size
from experiments.workbench.sweeping.objective import Objective, validation_scores
from experiments.workbench.sweeping.study import Pruning
from experiments.workbench.sweeping.worker import IMPOSSIBLE
from metarl.run.log_writers import rows_of

_TRIES = 3  # of a run whose process was killed from outside, such as by a lack of memory
_STOPPED = (130, 143)  # exit statuses after SIGINT and SIGTERM
_MOST_TASKS = 100  # of a seed, that Wilcoxon's pruner sees


@dataclass
class TrialRun:
    """The run of one seed."""

    seed: int
    path: Path
    task: Task | None = None
    tries: int = 0
    printed_before: int = 0  # the size of its output when it was started, in bytes
    by_task: np.ndarray | None = None  # the objective of each validation task, once it is finished
    curve: dict[int, float] = field(default_factory=dict)  # the objective by iteration, of the validations so far
    read: int = 0  # how far its log was read, in bytes

    def look(self, objective: Objective, num_iterations: int) -> None:
        """Read what is new in its files.

        Raises:
            RunError: when its evaluation cannot be read.
        """
        with contextlib.suppress(OSError), (self.path / "progress.json").open("rb") as file:
            file.seek(self.read)
            new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self.read += len(whole)
            for row in rows_of(whole):
                value = objective.of_row(row)
                if value is not None:
                    self.curve[int(row["time/iterations"])] = value
        if self.by_task is None:
            scores = validation_scores(self.path, num_iterations)
            self.by_task = None if scores is None else objective.by_task(scores)


@dataclass
class ActiveTrial:
    """A trial that this process works on."""

    trial: optuna.Trial
    lock: BinaryIO  # held while it is worked on
    words: tuple[str, ...]
    experiment: Experiment[Any, Any]
    runs: list[TrialRun]
    objective: Objective
    pruner: optuna.pruners.BasePruner
    pruning: Pruning
    reported: set[int] = field(default_factory=set)
    stopping: bool = False  # whether its runs were asked to stop, as it was pruned
    interrupted: bool = False  # whether its runs were asked to stop, to go on another time
    state: TrialState = TrialState.RUNNING
    failure: list[str] = field(default_factory=list)  # lines that say why it has no score

    @property
    def num_iterations(self) -> int:
        return self.experiment.train.num_iterations

    @property
    def has_news(self) -> bool:
        """Whether one of its runs has ended."""
        return any(run.task is not None and run.task.poll() is not None for run in self.runs)

    @property
    def is_idle(self) -> bool:
        return all(run.task is None for run in self.runs)

    def waiting(self) -> list[TrialRun]:
        """Runs that could be started now; one that a killed process left may still be saving."""
        if self.stopping or self.failure:
            return []
        unfinished = (run for run in self.runs if run.by_task is None and run.task is None)
        return [run for run in unfinished if not (run.path.is_dir() and is_locked(run.path))]

    def start(self, run: TrialRun, engine: Engine, name: str) -> None:
        """Begin a run, or go on with it from its last checkpoint.

        Raises:
            UserError: when the disk refuses it.
        """
        if not (run.path / "config.json").is_file():
            command = ["metarl", "train", name, *self.words, "--seed", str(run.seed), "--run-dir", str(run.path)]
            new_run(replace(self.experiment, seed=run.seed), name, run.path, command, ())
        run.printed_before, run.read = output_size(run.path), 0  # its log may be shortened to its checkpoint
        run.task = engine.start(run.path)
        run.tries += 1

    def advance(self, study: optuna.Study) -> None:
        """Look at its runs, and report and conclude what there is to."""
        for run in self.runs:
            if run.task is not None and (status := run.task.poll()) is not None:
                run.task = None
                self._ended(run, status)
            run.look(self.objective, self.num_iterations)
        if not self.stopping and not self.failure:
            self._report(study)
        if not self.is_idle:
            return
        if self.failure:
            self.trial.set_user_attr("failure", self.failure)
            self._tell(study, self.state, None)
        elif self.stopping:
            self._tell_pruned(study)
        elif all(run.by_task is not None for run in self.runs):
            self._tell(study, TrialState.COMPLETE, self._mean())

    def interrupt(self, *, at_once: bool) -> None:
        """Ask its runs to save and stop, or end them; it stays unfinished in the journal, to be taken up again."""
        self.interrupted = True
        for run in self.runs:
            if run.task is not None:
                run.task.kill() if at_once else run.task.stop()

    def release(self) -> None:
        """Let another process have it."""
        self.lock.close()

    def _stop(self) -> None:
        for run in self.runs:
            if run.task is not None:
                run.task.stop()

    def _ended(self, run: TrialRun, status: int) -> None:
        if status == 0 or self.stopping or self.interrupted or self.failure:
            return
        if (status < 0 or status in _STOPPED) and run.tries < _TRIES:  # by others: it goes on from its checkpoint
            return
        lines = last_lines(run.path, run.printed_before, 1)
        if status == IMPOSSIBLE:
            self.state, self.failure = TrialState.PRUNED, lines or ["it cannot be trained with these settings"]
        else:
            self.state, self.failure = TrialState.FAIL, [how(status), *lines]
        self._stop()

    def _report(self, study: optuna.Study) -> None:
        """Give the pruner what is new, and ask it."""
        news = self._tasks_done() if self.pruning.kind == "wilcoxon" else self._validations()
        new = {step: value for step, value in news.items() if step not in self.reported}
        for step, value in sorted(new.items()):
            self.trial.report(value, step)
            self.reported.add(step)
        is_over = all(run.by_task is not None for run in self.runs)
        if not new or is_over or self.pruning.kind == "none":
            return
        study.pruner = self.pruner
        if self.trial.should_prune():
            self.stopping = True
            self._stop()

    def _validations(self) -> dict[int, float]:
        """The mean over seeds of the objective, by iteration, where all seeds have it."""
        shared = set.intersection(*(set(run.curve) for run in self.runs))
        return {step: float(np.mean([run.curve[step] for run in self.runs])) for step in shared}

    def _tasks_done(self) -> dict[int, float]:
        """The objective by validation task, over all seeds that are finished; of a seed, the first tasks."""
        done = [(place, run.by_task[:_MOST_TASKS]) for place, run in enumerate(self.runs) if run.by_task is not None]
        return {place * _MOST_TASKS + task: float(score) for place, scores in done for task, score in enumerate(scores)}

    def _mean(self) -> float:
        """The objective over tasks and finished seeds."""
        return float(np.mean([run.by_task.mean() for run in self.runs if run.by_task is not None]))

    def _tell_pruned(self, study: optuna.Study) -> None:
        """A trial that Wilcoxon's pruner ended has the mean of its seeds, as the pruner's documentation advises."""
        if self.pruning.kind == "wilcoxon":
            self.trial.set_user_attr("pruned", True)
            self._tell(study, TrialState.COMPLETE, self._mean())
        else:
            self._tell(study, TrialState.PRUNED, None)

    def _tell(self, study: optuna.Study, state: TrialState, value: float | None) -> None:
        if value is not None and not np.isfinite(value):
            self.failure, state, value = ["its score is not finite"], TrialState.PRUNED, None
            self.trial.set_user_attr("failure", self.failure)
        values = [float(run.by_task.mean()) for run in self.runs if run.by_task is not None]
        self.trial.set_user_attr("by_seed", values)
        self.state = study.tell(self.trial, value, state=state).state


def begin(
    trial: optuna.Trial,
    lock: BinaryIO,
    words: tuple[str, ...],
    experiment: Experiment[Any, Any],
    seeds: Sequence[int],
    place: Path,
    objective: Objective,
    pruning: Pruning,
) -> ActiveTrial:
    """A trial that is new, or that was left by a process which has ended."""
    trial.set_user_attr("words", list(words))
    return ActiveTrial(
        trial=trial,
        lock=lock,
        words=words,
        experiment=experiment,
        runs=[TrialRun(seed, place / f"seed_{seed}") for seed in seeds],
        objective=objective,
        pruner=pruning.pruner(experiment.train.num_iterations),
        pruning=pruning,
        reported=set(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values),
    )
