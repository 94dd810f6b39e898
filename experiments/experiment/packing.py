"""Packing a run's agent into an archive with its evaluations and a model card."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch

from experiments.experiment.definition import needs_recipe, recipe_name, restored, to_config
from experiments.experiment.model_card import model_card
from experiments.experiment.reading import ReadRun
from metarl.errors import UserError
from metarl.evaluation import Evaluation
from metarl.optim import is_optimizer_state
from metarl.protocols import Split
from metarl.run.archive import write_archive
from metarl.run.directory import Run
from metarl.trainer import Trainer

_PROVENANCE = ("command", "started", "git", "versions", "platform", "same_bits_with", "from")  # of meta.json


@dataclass(frozen=True)
class Packed:
    """An archive that was written, and what its card says."""

    path: Path
    card: str
    evaluations: dict[str, Evaluation]  # by split


def pack(
    run: Run,
    reading: ReadRun,
    out: Path,
    *,
    checkpoint: str = "best",
    licence: str | None = None,
    tasks: int = 1000,
) -> Packed:
    """Evaluate a run's checkpoint on every split of its family, and write the archive.

    licence: of the weights, as the card has it. tasks: the number of tasks of each split.

    Raises:
        UserError: when the run cannot be read or evaluated, or the archive cannot be written.
    """
    if run.is_packed:
        raise UserError(f"{run.path} is packed already; pack takes a run's directory")
    experiment = replace(reading.experiment, device="cpu")
    trainer = restored(experiment, run, checkpoint, to_train=False)
    evaluations = {split: found for split in get_args(Split) if (found := _evaluated(trainer, split, tasks))}
    config = to_config(experiment, recipe_name(run.config(), run.path))
    if config["experiment"].endswith(".py"):
        config["experiment"] = Path(config["experiment"]).name
    meta = {name: value for name, value in run.meta().items() if name in _PROVENANCE}
    meta["command"] = _without_run_dir(str(meta.get("command", "unknown")))
    meta["packed"] = {
        "checkpoint": checkpoint,
        "iteration": trainer.iteration,
        "num_samples": trainer.num_samples,
        "unit": trainer.source.unit,
        "seconds": trainer.seconds,
        "parameters": _num_learned(trainer.agent.state_dict()),
        "licence": licence,
        "evaluation_seed": 0,
        "needs_recipe": needs_recipe(config),
    }
    card = model_card(out.name, config, meta, evaluations)
    write_archive(
        out,
        card=card,
        config=config,
        meta=meta,
        state=trainer.state_dict(to_train=False),
        evaluations={split: replace(found, per_task=None).as_json() for split, found in evaluations.items()},
    )
    return Packed(out, card, evaluations)


def _without_run_dir(command: str) -> str:
    """The command that made a run, without the author's folder for it."""
    words = shlex.split(command)
    if "--run-dir" not in words:
        return command
    at = words.index("--run-dir")
    return shlex.join(words[:at] + words[at + 2 :])


def _evaluated(trainer: Trainer, split: Any, tasks: int) -> Evaluation | None:
    """The evaluation on a split; None where the family has no such split.

    Raises:
        UserError: when the agent cannot be evaluated.
    """
    try:
        return trainer.evaluate(split, tasks)
    except ValueError as error:
        if split in ("val", "ood"):
            return None
        raise UserError(str(error)) from error
    except FloatingPointError as error:
        raise UserError(str(error)) from error


def _num_learned(state: Any) -> int:
    """How many numbers a learner's state has in tensors, those of optimisers aside."""
    if isinstance(state, torch.Tensor):
        return state.numel()
    if isinstance(state, Mapping):
        return sum(_num_learned(item) for item in state.values() if not is_optimizer_state(item))
    return sum(map(_num_learned, state)) if isinstance(state, (list, tuple)) else 0
