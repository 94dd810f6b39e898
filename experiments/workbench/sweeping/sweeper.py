"""Works on a sweep: claims trials, runs them as processes, several at once, and concludes them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import optuna
from optuna.trial import FrozenTrial, TrialState

from experiments.workbench.launching.engines import Engine
from experiments.workbench.launching.launcher import noted_signals
from experiments.workbench.sweeping.objective import Objective
from experiments.workbench.sweeping.space import Space
from experiments.workbench.sweeping.study import Pruning, Study
from experiments.workbench.sweeping.trial import ActiveTrial, begin
from metarl.errors import UserError

_POLL = 0.2  # seconds
_LOOK = 1.0  # seconds between two looks at the files of runs, and at the trials of other processes
_MOST_FAILURES = 3  # one after the other, that this process accepts

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What a process does for a sweep."""

    space: Space
    objective: Objective
    pruning: Pruning
    seeds: tuple[int, ...]  # of each trial
    evaluations: int  # validations during a trial's training, the last one included
    trials: int  # of all processes together
    at_once: int  # processes of this one


@dataclass
class Sweeper:
    """The trials that this process works on."""

    plan: Plan
    study: Study
    engine: Engine
    say: Say
    active: list[ActiveTrial] = field(default_factory=list)
    failures: int = 0  # trials that failed one after the other

    def work(self) -> int:
        """Work until there are as many trials as planned; returns an exit status, 128 + n after signal n.

        The first SIGINT or SIGTERM asks all runs to save and stop, a second one ends them at once.

        Raises:
            UserError: when several trials fail one after the other, as on a full disk.
        """
        looked_at = -_LOOK
        with noted_signals() as signals:
            acted_on = 0
            try:
                while True:
                    if len(signals) > acted_on:
                        acted_on = len(signals)
                        for active in self.active:
                            active.interrupt(at_once=acted_on > 1)
                    is_due = time.monotonic() - looked_at >= _LOOK
                    if is_due:
                        looked_at = time.monotonic()
                    concluded = self._advance(look=is_due or bool(signals))
                    if signals:
                        if all(active.is_idle for active in self.active):
                            return 128 + signals[0]
                    elif is_due or concluded:
                        self._fill()
                        if not self.active and not self.study.is_worked_on():
                            return 0
                    time.sleep(_POLL)
            finally:
                for active in self.active:
                    active.interrupt(at_once=True)
                    active.release()
                self.engine.close()

    def _advance(self, *, look: bool) -> bool:
        """Look at those trials where a run has ended, or at all of them; returns whether there is room for more."""
        before = self.num_running
        for active in list(self.active):
            if not look and not active.has_news:
                continue
            active.advance(self.study.optuna)
            if active.state is not TrialState.RUNNING:
                self._conclude(active)
        return self.num_running < before

    @property
    def num_running(self) -> int:
        return sum(run.task is not None for active in self.active for run in active.runs)

    def _conclude(self, active: ActiveTrial) -> None:
        self.active.remove(active)
        active.release()
        trial = self.study.optuna.get_trials(deepcopy=False)[active.trial.number]
        self.say(described(trial, best_of(self.study, self.plan)))
        self.failures = self.failures + 1 if active.state is TrialState.FAIL else 0
        if self.failures >= _MOST_FAILURES:
            reason = "; ".join(active.failure)
            raise UserError(f"{self.failures} trials failed one after the other, the last one: {reason}")

    def _fill(self) -> None:
        """Start what there is room for."""
        while self.num_running < self.plan.at_once:
            waiting = [(active, run) for active in self.active for run in active.waiting()]
            if waiting:
                active, run = waiting[0]
                active.start(run, self.engine, self.plan.space.experiment)
            elif len(self.active) >= self.plan.at_once or not self._claim():
                return

    def _claim(self) -> bool:
        claimed = self.study.claim(self.plan.trials)
        if claimed is None:
            return False
        trial, lock = claimed
        with contextlib.ExitStack() as stack:
            stack.callback(lock.close)
            active = self._begin(trial, lock)
            if active is not None:
                self.active.append(active)
                stack.pop_all()  # the lock is held for as long as the trial is worked on
        return True

    def _begin(self, trial: optuna.Trial, lock: BinaryIO) -> ActiveTrial | None:
        """A trial that is ready to be run; None where its values do not fit together, which concludes it.

        Raises:
            UserError: when the recipe does not load any more.
        """
        place = self.study.place(trial.number)
        is_new = not (place / f"seed_{self.plan.seeds[0]}").is_dir()
        words = self.plan.space.suggest(trial)
        try:
            experiment = trial_settings(self.plan, words)
        except UserError as error:
            self.plan.space.settings(self.plan.space.first_words())  # where the recipe is to blame
            trial.set_user_attr("words", list(words))
            trial.set_user_attr("failure", [str(error)])
            self.study.optuna.tell(trial, state=TrialState.PRUNED)
            self.say(f"trial {trial.number}: impossible: {error}")
            return None
        self.say(f"trial {trial.number}: {'begins' if is_new else 'goes on'} with {' '.join(words)}")
        return begin(trial, lock, words, experiment, self.plan.seeds, place, self.plan.objective, self.plan.pruning)


def trial_settings(plan: Plan, words: Sequence[str]) -> Any:
    """The experiment of a trial's runs: validated during training only for the pruner.

    Raises:
        UserError: when the words do not fit together.
    """
    experiment = plan.space.settings(words)
    every = 0
    if plan.pruning.kind in ("median", "hyperband"):
        every = max(1, experiment.train.num_iterations // plan.evaluations)
    return replace(experiment, train=replace(experiment.train, eval_every=every), expected=None)


def best_of(study: Study, plan: Plan) -> FrozenTrial | None:
    """The best of the trials that had all their seeds; None where there is none yet."""
    sign = 1 if plan.objective.maximises else -1
    whole = [trial for trial in study.trials(TrialState.COMPLETE) if not trial.user_attrs.get("pruned")]
    return max(whole, key=lambda trial: sign * (trial.value or 0.0), default=None)


def described(trial: FrozenTrial, best: FrozenTrial | None) -> str:
    """What came of a trial, in one line."""
    words = " ".join(trial.user_attrs.get("words", ()))
    failure = " ".join(trial.user_attrs.get("failure", ()))
    if failure:
        what = "failed" if trial.state is TrialState.FAIL else "impossible"
        return f"trial {trial.number}: {what}: {failure} ({words})"
    value = "no score" if trial.value is None else f"{trial.value:.4g}"
    pruned = "pruned at " if trial.state is TrialState.PRUNED else ""
    found = "" if best is None else f"; best {best.value:.4g} of trial {best.number}"
    return f"trial {trial.number}: {pruned}{value} with {words}{found}"
