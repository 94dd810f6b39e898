"""How a trained agent fares where its family differs from training: an evaluation for each point of a grid."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from gymnasium import spaces

from envs.wrappers import ActionRepeat, Delayed, Effort, Noisy, OnEngine
from experiments.experiment.definition import Experiment
from experiments.experiment.evaluating import evaluate_run
from experiments.experiment.names import suggestion
from experiments.experiment.overrides import with_overrides
from metarl.errors import UserError
from metarl.evaluation import Evaluation
from metarl.run.directory import Run

MOST_AXES = 2  # as many as a picture has
_WRAPPERS = (Delayed, Noisy, ActionRepeat, OnEngine)  # the outermost first
_WRAPPED = {field.name: wrapper for wrapper in _WRAPPERS for field in fields(wrapper) if field.name != "family"}


@dataclass(frozen=True)
class Axis:
    """A field and the values to give it."""

    name: str  # such as "family.obs_noise"
    values: tuple[Any, ...]

    @classmethod
    def of(cls, text: str) -> Axis:
        """The axis that `family.FIELD=V1,V2` stands for; a hyphen in the field's name stands for an underscore.

        Raises:
            UserError: when it has another form.
        """
        name, sign, values = text.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        if not sign or not values or not name.startswith("family."):
            raise UserError(f"--grid is {text!r}; must be family.FIELD=VALUE,VALUE,... such as family.obs-noise=0,0.1")
        return cls(name, tuple(_value(word) for word in values.split(",")))

    @property
    def label(self) -> str:
        return self.name.removeprefix("family.")


@dataclass(frozen=True)
class Cell:
    """An evaluation with one value from each axis."""

    settings: dict[str, Any]
    evaluation: Evaluation


def evaluate_grid(run: Run, trained: Experiment[Any, Any], axes: Sequence[Axis], **settings: Any) -> Iterator[Cell]:
    """Evaluate a run at every point of a grid, on the same tasks wherever the family draws them alike.

    Noise, delays, repeated actions and engines are those of `envs.wrappers` where the family has no such field.
    Continuous actions are measured, see `envs.wrappers.Effort`. settings: as of `evaluate_run`.

    Raises:
        UserError: for an unknown field, or what cannot be evaluated; fields and values are checked before the first
            evaluation.
    """
    if not 1 <= len(axes) <= MOST_AXES:
        raise UserError(f"--grid is given {len(axes)} times; must be given once or twice")
    points = [
        dict(zip((axis.name for axis in axes), values, strict=True))
        for values in itertools.product(*(a.values for a in axes))
    ]
    asked = [_with_effort(_with(trained, point)) for point in points]
    for point, experiment in zip(points, asked, strict=True):
        evaluation = evaluate_run(run, trained, experiment, **settings).evaluation
        facts = {name: value for name, value in evaluation.facts.items() if not name.startswith("family.")}
        yield Cell(point, replace(evaluation, family=trained.family.name, facts={**facts, **point}))


def _value(word: str) -> Any:
    try:
        return json.loads(word)
    except ValueError:
        return word


def _with(experiment: Experiment[Any, Any], point: Mapping[str, Any]) -> Experiment[Any, Any]:
    """The experiment with other values, in wrappers where its family does not have the fields itself."""
    own = {field.name for field in fields(experiment.family)}
    top = {name: name.split(".")[1] for name in point}
    inside = {name: value for name, value in point.items() if top[name] in own}
    around = {name.removeprefix("family."): value for name, value in point.items() if name not in inside}
    experiment = with_overrides(experiment, inside)
    for name in around:
        if name not in _WRAPPED:
            raise UserError(f"family.{name} is not a field: {suggestion(name, [*own, *_WRAPPED])}")
    for wrapper in reversed(_WRAPPERS):
        given = {name: value for name, value in around.items() if _WRAPPED[name] is wrapper}
        if given:
            try:
                experiment = replace(experiment, family=wrapper(experiment.family, **given))
            except (ValueError, TypeError) as error:
                raise UserError(f"family: {error}") from error
    return experiment


def _with_effort(experiment: Experiment[Any, Any]) -> Experiment[Any, Any]:
    if not isinstance(getattr(experiment.family, "action_space", None), spaces.Box):
        return experiment
    return replace(experiment, family=Effort(experiment.family))
