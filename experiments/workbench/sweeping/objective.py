"""The objective of a sweep: one number of the adaptation curve on validation tasks.

Validation tasks are those of the split "val" where a family has it. Elsewhere they are tasks of the split "train" that
training never draws, since they come from a generator of their own. In many families "train" and "test" are one
distribution, so this generator also differs from that of the final evaluation: no test task is among them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from metarl.errors import RunError
from metarl.evaluation import Evaluation
from metarl.protocols import Split
from metarl.run.files import reason
from metarl.statistics import Scores
from metarl.trainer import Trainer

ObjectiveName = Literal["last", "mean", "gain"]
VALIDATION_SEED = 2**40  # of the validation tasks, far from the seeds that evaluations are usually given


def validation_split(family: Any) -> Split:
    """The split whose tasks choose among settings: "val" where the family has it, else "train"."""
    draw = family.sample if hasattr(family, "sample") else lambda *args: family.episode(*args[:2], generator=args[2])
    try:
        draw(1, "val", torch.Generator().manual_seed(0))
    except (ValueError, KeyError):
        return "train"
    return "val"


def validate(trainer: Trainer, split: Split | None = None) -> Evaluation:
    """The adaptation curve on validation tasks, the same for all trials of a sweep; `split` has no say in it.

    Its split is called "val" wherever its tasks come from, which is among its facts.
    """
    source = validation_split(trainer.family)
    evaluation = trainer.evaluate(source, seed=VALIDATION_SEED)
    return replace(evaluation, split="val", facts={**evaluation.facts, "tasks_of_split": source})


@dataclass(frozen=True)
class Objective:
    """What is optimised.

    "last": the last point of the adaptation curve; "mean": the mean over its points; "gain": how much better the last
    point is than the first.
    """

    name: ObjectiveName
    measure: str  # what the scores are, e.g. "return"
    higher_is_better: bool  # whether a higher score is better, as a return is; an error is not

    @property
    def described(self) -> str:
        what = {"last": "last point", "mean": "mean", "gain": "gain"}[self.name]
        return f"{what} of the curve"

    @property
    def maximises(self) -> bool:
        return self.name == "gain" or self.higher_is_better

    def by_task(self, scores: Scores) -> Scores:
        """The objective [N] of each task from the scores [points, N]."""
        if self.name == "last":
            return scores[-1]
        if self.name == "mean":
            return scores.mean(0)
        return (scores[-1] - scores[0]) * (1 if self.higher_is_better else -1)

    def of_row(self, row: Mapping[str, float]) -> float | None:
        """The objective of a row of a trial's log, from the points that are logged; None where it has no validation."""
        point = re.compile(rf"meta_val/{re.escape(self.measure)}/[a-z]+_(\d+)")
        points = sorted((int(match[1]), value) for tag, value in row.items() if (match := point.fullmatch(tag)))
        curve = np.array([[value] for _, value in points])
        return float(self.by_task(curve)[0]) if len(curve) and np.isfinite(curve).all() else None

    def is_better(self, value: float, than: float) -> bool:
        return value > than if self.maximises else value < than


def validation_scores(run: Path, num_iterations: int) -> Scores | None:
    """The scores [points, N] on validation tasks at the end of a run's training; None where there are none yet.

    Raises:
        RunError: when the file of an evaluation cannot be read.
    """
    file = run / "evaluation_val.json"
    try:
        evaluation = json.loads(file.read_bytes())
        is_validation = evaluation["evaluation_seed"] == VALIDATION_SEED
        finished = is_validation and evaluation["iteration"] >= num_iterations
        return np.array(evaluation["per_task"]["scores"], dtype=float) if finished else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"cannot read {file}: {reason(error)}") from error
