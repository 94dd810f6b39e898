"""Meta-overfitting: how much better a learner is on training tasks than on others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from experiments.workbench.insight.findings import Evidence, Finding, text
from metarl.evaluation import Evaluation
from metarl.protocols import Split
from metarl.statistics import Scores, difference_interval
from metarl.trainer import Trainer

SPLITS: tuple[Split, ...] = ("train", "val", "test", "ood")
_LEAST_GAP = 0.05  # of the score on training tasks, below which a gap is no worry


@dataclass(frozen=True)
class Gap:
    """How much better a learner is on training tasks than on those of another split."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{text(self.mean)} ({text(self.low)} to {text(self.high)})"


def evaluations(trainer: Trainer, num_tasks: int, seed: int) -> dict[Split, Evaluation]:
    """The evaluation on each split that the family declares; on training tasks with another seed than on the others."""
    found: dict[Split, Evaluation] = {}
    for split in SPLITS:
        try:
            found[split] = trainer.evaluate(split, num_tasks, seed=seed + (split == "train"))
        except ValueError:  # the family does not declare the split
            continue
    return found


def overfitting(by_split: Mapping[Split, Evaluation]) -> Finding:
    """The gap between training tasks and each other split, at the last point of the curve."""
    scores = {split: _last(evaluation) for split, evaluation in by_split.items()}
    rows = [
        [split, text(one.points[-1].mean), f"{text(one.points[-1].ci95[0])} to {text(one.points[-1].ci95[1])}"]
        for split, one in by_split.items()
    ]
    any_one = next(iter(by_split.values()))
    title = f"{any_one.measure.name} at the last point"
    evidence = [Evidence(title, ["tasks", "mean", "95 %"], rows)]
    if "train" not in scores or not {"val", "test"} & scores.keys():
        return Finding("meta-overfitting", "unknown", "the family has no training tasks, or no others", evidence)
    gaps = {split: _gap(scores["train"], scores[split]) for split in scores if split != "train"}
    rows = [
        [f"train over {split}", text(gap.mean), f"{text(gap.low)} to {text(gap.high)}"] for split, gap in gaps.items()
    ]
    evidence.append(Evidence("gap", ["between", "mean", "95 %"], rows))
    numbers = {f"gap_{split}": gap.mean for split, gap in gaps.items()}
    main = gaps["test"] if "test" in gaps else gaps["val"]
    ood = f"; {gaps['ood']} on ood tasks" if "ood" in gaps else ""
    what = f"on training tasks it is better by {main}{ood}"
    if main.low > 0 and main.mean > _LEAST_GAP * abs(by_split["train"].points[-1].mean):
        return Finding("meta-overfitting", "warning", f"overfits its training tasks: {what}", evidence, numbers)
    return Finding("meta-overfitting", "fine", f"does not overfit its training tasks: {what}", evidence, numbers)


def _last(evaluation: Evaluation) -> Scores:
    """The score of each task at the last point, where it is finite; higher is better."""
    assert evaluation.per_task is not None
    scores = np.array(evaluation.per_task.scores[-1], dtype=float)
    return scores[np.isfinite(scores)] * (1 if evaluation.measure.higher_is_better else -1)


def _gap(trained: Scores, other: Scores) -> Gap:
    return Gap(float(trained.mean() - other.mean()), *difference_interval(trained, other))
