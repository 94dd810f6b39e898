"""The directory of a sweep, which several processes and machines can work on at once.

DIR/sweep.json              what is searched, and on what: a sweep that differs needs another directory
DIR/journal.log             Optuna's journal of all trials
DIR/trials/0007/seed_0/     the runs of a trial, one for each seed
DIR/confirmed/0007/seed_1/  runs of the best trial's settings with fresh seeds
DIR/winner.py               the recipe of the best trial

A process that works on a trial holds a lock on the trial's directory. A trial that is running in the journal though
nobody holds its lock was left by a process that has ended, and is taken up again.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from metarl.errors import RunError, UserError
from metarl.run.files import open_lock, reason, write_whole

if TYPE_CHECKING:
    from experiments.workbench.sweeping.warm_start import PastTrial

try:
    import fcntl
except ImportError:  # not on Windows, where one process works on a sweep
    fcntl = None

SamplerName = Literal["tpe", "gp", "cmaes", "random", "qmc"]
PrunerName = Literal["none", "hyperband", "median", "wilcoxon"]
_STUDY = "sweep"  # the study's name in its journal
_SEEDS_APART = 1_000_003  # between the samplers of two sweeps


@dataclass(frozen=True)
class Pruning:
    """When a trial is ended early.

    Meta-learners may do nothing for long and learn then, so two things protect late starters: no trial is ended before
    a fraction of its iterations, and none whose score got better within the last few validations.
    """

    kind: PrunerName = "median"
    warm_up: float = 0.3  # fraction of a trial's iterations
    patience: int = 2  # number of validations

    def pruner(self, num_iterations: int) -> optuna.pruners.BasePruner:
        """Optuna's pruner, for trials of so many iterations.

        Wilcoxon's needs neither: it compares trained learners, task by task, once a seed of a trial has finished. It
        takes the tasks of one learner to be independent, and so is quicker to give a trial up than whole seeds justify.
        """
        first = max(1, round(self.warm_up * num_iterations))
        with _quiet():
            if self.kind == "none":
                return optuna.pruners.NopPruner()
            if self.kind == "wilcoxon":
                return optuna.pruners.WilcoxonPruner()
            wrapped: optuna.pruners.BasePruner = optuna.pruners.MedianPruner(n_warmup_steps=first)
            if self.kind == "hyperband":
                wrapped = optuna.pruners.HyperbandPruner(min_resource=first, max_resource=num_iterations)
            return _Patient(wrapped, optuna.pruners.PatientPruner(None, self.patience))


class _Patient(optuna.pruners.BasePruner):
    """Ends what both of two pruners would end.

    Optuna's own PatientPruner asks the one it is around only after some trial has stopped improving. Successive halving
    would then compare such trials with one another only, and end none of them for long.
    """

    def __init__(self, pruner: optuna.pruners.BasePruner, patience: optuna.pruners.PatientPruner) -> None:
        self._pruner, self._patience = pruner, patience

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        ends = self._pruner.prune(study, trial)
        return ends and self._patience.prune(study, trial)


class Study:
    """A sweep's directory and its trials."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], sampler: SamplerName, seed: int) -> None:
        """The study in a directory, which is made where there is none.

        settings: what the trials have in common; nested mappings of JSON values.

        Raises:
            UserError: when the directory holds another sweep or anything else, or cannot be written.
        """
        self.folder, self._sampler, self._seed = folder, sampler, seed
        self._held: set[int] = set()  # the trials that this process works on, or has worked on
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._claiming():
                _check_settings(folder, json.loads(json.dumps(settings)))
                with _quiet():
                    self.optuna = optuna.create_study(
                        storage=optuna.storages.JournalStorage(JournalFileBackend(str(folder / "journal.log"))),
                        study_name=_STUDY,
                        direction=settings["direction"],
                        load_if_exists=True,
                    )
        except OSError as error:
            raise RunError(f"cannot write the sweep in {folder}: {reason(error)}") from error
        except (ValueError, KeyError) as error:  # a journal that is damaged
            raise RunError(f"cannot read {folder / 'journal.log'}: {reason(error)}") from error

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """All trials in these states, by number; without any: all that were ever begun."""
        states = states or (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        return self.optuna.get_trials(deepcopy=False, states=states)

    def place(self, number: int) -> Path:
        """The directory of a trial's runs."""
        return self.folder / "trials" / f"{number:04}"

    def claim(self, most: int) -> tuple[optuna.Trial, BinaryIO] | None:
        """A trial that nobody works on, and its lock: one that was left, or a new one while there are less than `most`.

        None where there is none.
        """
        with self._claiming():
            for trial in self.trials(TrialState.RUNNING):
                if trial.number in self._held:
                    continue
                with contextlib.suppress(BlockingIOError):
                    lock = self._lock(trial.number)
                    self._held.add(trial.number)
                    self.optuna.sampler = self._fresh_sampler(trial.number)
                    return optuna.Trial(self.optuna, trial._trial_id), lock
            number = len(self.trials())
            if number >= most:
                return None
            self.optuna.sampler = self._fresh_sampler(number)
            with _quiet():
                trial = self.optuna.ask()
            self._held.add(trial.number)
            return trial, self._lock(trial.number)

    def propose(self, past: Sequence[PastTrial], most: int) -> list[PastTrial]:
        """Let past settings be the first trials of a study that has none yet; returns those, without repetitions."""
        proposed: list[PastTrial] = []
        with self._claiming():
            if self.optuna.get_trials(deepcopy=False):
                return []
            for trial in past:
                if len(proposed) < most and all(trial.values != other.values for other in proposed):
                    self.optuna.enqueue_trial(trial.values, user_attrs={"warm_start": trial.source})
                    proposed.append(trial)
        return proposed

    def is_worked_on(self) -> bool:
        """Whether any trial is running in another process."""
        for trial in self.trials(TrialState.RUNNING):
            try:
                self._lock(trial.number).close()
            except BlockingIOError:
                return True
        return False

    @contextlib.contextmanager
    def concluding(self) -> Iterator[None]:
        """Only one process at a time runs the winner again."""
        with _locked(self.folder / ".concluding.lock"):
            yield

    @contextlib.contextmanager
    def _claiming(self) -> Iterator[None]:
        with _locked(self.folder / ".claiming.lock"):
            yield

    def _lock(self, number: int) -> BinaryIO:
        """The lock of a trial.

        Raises:
            BlockingIOError: when another process has it.
        """
        self.place(number).mkdir(parents=True, exist_ok=True)
        file = open_lock(self.place(number) / ".lock")
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise
        return file

    def _fresh_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """The sampler of a trial, with random numbers of its own: those of one process would repeat when resumed."""
        seed = self._seed * _SEEDS_APART + number
        with _quiet():
            if self._sampler == "gp":
                return optuna.samplers.GPSampler(seed=seed % 2**32, warn_independent_sampling=False)
            if self._sampler == "cmaes":
                return optuna.samplers.CmaEsSampler(seed=seed % 2**32, warn_independent_sampling=False)
            if self._sampler == "random":
                return optuna.samplers.RandomSampler(seed=seed % 2**32)
            if self._sampler == "qmc":  # counts its points in the journal, so that all have one seed
                return optuna.samplers.QMCSampler(
                    seed=self._seed, scramble=True, warn_independent_sampling=False, warn_asynchronous_seeding=False
                )
            return optuna.samplers.TPESampler(
                seed=seed % 2**32,
                multivariate=True,
                group=True,
                constant_liar=True,
                warn_independent_sampling=False,
            )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait for the lock of a file, and hold it."""
    with open_lock(path) as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optuna warns of whatever it calls experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Check that a directory holds no other sweep, and note the settings in a new one.

    Raises:
        UserError: names what differs.
    """
    file = folder / "sweep.json"
    if not file.exists():
        others = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        if others:
            raise UserError(f"--out is {str(folder)!r}, which is not empty and holds no sweep; give an empty directory")
        write_whole(file, json.dumps(settings, indent=2).encode())
        return
    try:
        kept = json.loads(file.read_bytes())
    except ValueError as error:
        raise RunError(f"cannot read {file}: {reason(error)}") from error
    before, now = _flat(kept), _flat(settings)
    for name in dict.fromkeys((*before, *now)):
        if before.get(name) != now.get(name):
            was, is_now = (f"{found[name]!r}" if name in found else "missing" for found in (before, now))
            raise UserError(
                f"{folder} holds another sweep: {name} is {was} there and {is_now} here; give another --out"
            )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
