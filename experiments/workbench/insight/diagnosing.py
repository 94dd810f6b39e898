"""All detectors of self-deception on one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from envs.external import CrashedTooOften
from experiments.experiment.definition import Experiment, restored
from experiments.workbench.insight import memorisation as memory
from experiments.workbench.insight.exchange import Exchange, LearnerExchange, exchange_of
from experiments.workbench.insight.findings import Finding
from experiments.workbench.insight.forgetting import forgetting
from experiments.workbench.insight.hacking import reward_hacking
from experiments.workbench.insight.interference import interference
from experiments.workbench.insight.overfitting import evaluations, overfitting
from experiments.workbench.insight.shortcuts import shortcuts
from metarl.errors import UserError
from metarl.evaluation import Evaluation
from metarl.protocols import Split
from metarl.run.directory import Run

DETECTORS = ("meta-overfitting", "memorisation", "shortcuts", "interference", "forgetting", "reward hacking")

_PREFERRED: tuple[Split, ...] = ("test", "val", "train")  # splits to diagnose on


@dataclass(frozen=True)
class Diagnosis:
    """What to diagnose, and on how many tasks."""

    run: Run
    experiment: Experiment[Any, Any]
    checkpoint: str
    num_tasks: int
    pair_tasks: int  # tasks that are compared in pairs
    copies: int  # rows of each of these for a gradient
    seed: int

    def findings(self) -> Iterator[Finding]:
        """One finding after another, in the order of `DETECTORS`; one that cannot be made says why.

        Raises:
            UserError: when the run cannot be read.
        """
        trainer = restored(self.experiment, self.run, self.checkpoint, to_train=False)
        by_split = evaluations(trainer, self.num_tasks, self.seed)
        exchange, why = self._exchange(trainer)
        of_tasks = _preferred(by_split)
        steps: dict[str, Callable[[], Finding]] = {
            "meta-overfitting": lambda: overfitting(by_split),
            "memorisation": lambda: memory.memorisation(_needed(exchange, why), "training"),
            "shortcuts": lambda: (
                memory.labels(exchange, torch.Generator().manual_seed(self.seed))
                if isinstance(exchange, LearnerExchange)
                else shortcuts(trainer, of_tasks, self.num_tasks, self.seed)
            ),
            "interference": lambda: interference(trainer, exchange, self.pair_tasks, self.copies, self.seed),
            "forgetting": lambda: forgetting(self.run, self.experiment, self.num_tasks, self.seed),
            "reward hacking": lambda: reward_hacking(by_split[of_tasks], self.run.progress()),
        }
        for name in DETECTORS:
            try:
                yield steps[name]()
            except (UserError, ValueError, FloatingPointError, CrashedTooOften) as error:
                yield Finding(name, "unknown", f"cannot be told: {error}")

    def _exchange(self, trainer: Any) -> tuple[Exchange | None, str]:
        """The learner adapted to training tasks; where it cannot be, None and why."""
        try:
            return exchange_of(trainer, "train", self.num_tasks, self.seed), ""
        except (UserError, ValueError) as error:
            return None, str(error)


def diagnosis_of(run: Run, experiment: Experiment[Any, Any], **settings: Any) -> Diagnosis:
    """A diagnosis on the CPU."""
    return Diagnosis(run, replace(experiment, device="cpu"), **settings)


def _preferred(by_split: Mapping[Split, Evaluation]) -> Split:
    """The split to diagnose on, among those that were evaluated."""
    for split in _PREFERRED:
        if split in by_split:
            return split
    return _PREFERRED[0]


def _needed(exchange: Exchange | None, why: str) -> Exchange:
    if exchange is None:
        raise UserError(why)
    return exchange
