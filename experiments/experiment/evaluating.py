"""Evaluating a run: a checkpoint's learner on fresh tasks, with the run's own settings or with others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from envs.external import CrashedTooOften
from experiments.experiment.config_json import to_json
from experiments.experiment.definition import Experiment, restored
from metarl.errors import UserError
from metarl.evaluation import Evaluation
from metarl.fewshot.episode import FewShotFamily
from metarl.run.directory import Run
from metarl.trainer import Trainer

SIZES = {"ways": "ways", "shots": "shots", "queries": "test_queries"}  # of a few-shot task, and the families' fields


@dataclass(frozen=True)
class Evaluated:
    """An evaluation, and its settings."""

    evaluation: Evaluation
    trainer: Trainer
    settings: dict[str, Any]  # set otherwise than in training, by dotted name


def evaluate_run(
    run: Run,
    trained: Experiment[Any, Any],
    asked: Experiment[Any, Any],
    *,
    split: Any = "test",
    tasks: int = 1000,
    points: int | None = None,
    checkpoint: str = "latest",
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    deterministic: bool = False,
    through: Path | None = None,
) -> Evaluated:
    """Evaluate what a checkpoint learned in the experiment `trained`, with the family and the agent of `asked`.

    sizes: other numbers of classes and examples in a few-shot task, by the names in `SIZES`. deterministic: act by the
    policy's mode. through: an exported ONNX file to act through, which has the policy's mode only.

    Raises:
        UserError: for whatever cannot be evaluated, such as a split that the family does not have.
    """
    settings = _differences(trained, asked)
    asked = replace(asked, family=_resized(asked.family, sizes or {}))
    trainer, family = _restored(trained, asked, run, checkpoint)
    if through is not None:
        trainer.agent = _through(through, trainer, deterministic=deterministic, seed=seed)
        settings = {**settings, "through": through.name}
    try:
        evaluation = trainer.evaluate(split, tasks, points, seed, family=family, deterministic=deterministic)
    except (ValueError, OverflowError, FloatingPointError, CrashedTooOften) as error:
        raise UserError(str(error)) from error
    evaluation = replace(evaluation, facts={**evaluation.facts, **settings})
    return Evaluated(evaluation, trainer, settings)


def _through(path: Path, trainer: Trainer, *, deterministic: bool, seed: int) -> Any:
    """The agent in an exported file, to evaluate in place of the trainer's."""
    from experiments.exporting.files import OnnxFile  # here, as only this needs an optional package
    from experiments.exporting.through import file_agent

    if not hasattr(trainer.family, "make_env"):
        raise UserError(f"--through is {path}; {trainer.family.name} has no environment to act in")
    return file_agent(OnnxFile(path), trainer.family, trainer.agent, deterministic=deterministic, seed=seed)


def _differences(before: Experiment[Any, Any], after: Experiment[Any, Any]) -> dict[str, Any]:
    """The settings of family and agent that differ, by name."""

    def flat(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        named = {f"{prefix}.{name}": value for name, value in values.items()}
        inner = [flat(value, name) for name, value in named.items() if isinstance(value, Mapping)]
        leaves = {name: value for name, value in named.items() if not isinstance(value, Mapping)}
        return {name: value for part in (leaves, *inner) for name, value in part.items()}

    old, new = (flat(to_json(one.family), "family") | flat(to_json(one.agent), "agent") for one in (before, after))
    return {name: value for name, value in new.items() if value != old.get(name)}


def _restored(
    trained: Experiment[Any, Any], asked: Experiment[Any, Any], run: Run, checkpoint: str
) -> tuple[Trainer, Any]:
    """A trainer with what the checkpoint learned, and the family to evaluate it on; None for the trainer's own.

    A few-shot learner is one for its own family's classes, and is given other tasks as they are; an agent that acts is
    made for the family that it is evaluated on.
    """
    if not isinstance(asked.family, FewShotFamily):
        return restored(asked, run, checkpoint, to_train=False), None
    trainer = restored(replace(asked, family=trained.family), run, checkpoint, to_train=False)
    return trainer, None if asked.family == trained.family else asked.family


def _resized(family: Any, sizes: Mapping[str, int]) -> Any:
    """The family with other numbers of classes and examples in a task.

    Raises:
        UserError: when the family has no such numbers, or refuses these.
    """
    for name, value in sizes.items():
        if SIZES[name] not in {field.name for field in fields(family)}:
            raise UserError(f"--{name} is {value}; {family.name} has no {name} of classes")
    try:
        return replace(family, **{SIZES[name]: value for name, value in sizes.items()})
    except ValueError as error:
        raise UserError(str(error)) from error
