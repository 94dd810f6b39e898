"""The space of a sweep: fields of an experiment that are given a range or a list instead of a value.

    1e-4:1e-2       a range; integers where the field is one
    1e-4:1e-2:log   a range on a logarithmic scale
    16:128:16       a range in steps
    relu,tanh       a list; each value is written as it would be alone, so "40 40,64 64" lists two tuples

A field may exist for some variants only, such as `agent.memory.filters` with `agent.memory snail`: it is a part of the
trials that have it. The words that a trial amounts to are those of `metarl train`, and are checked as there.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import types
import typing
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.experiment.definition import Experiment, load, to_config
from experiments.experiment.overrides import annotations_of
from experiments.experiment.variants import variants
from experiments.workbench.launching.plan import PlannedExperiment
from metarl.errors import UserError

if TYPE_CHECKING:
    import optuna

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER}):({_NUMBER})(?::(log|{_NUMBER}))?")
MEASURING = ("num_points", "eval_every", "eval_tasks", "checkpoint_every", "checkpoint_minutes")  # of TrainConfig
_SEARCHED = ("agent", "train")  # parts of an experiment; another family or seed would be another question


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    name: str  # e.g. "agent.learning_rate"
    text: str  # as it was given
    low: float
    high: float
    whole: bool  # whether all are integers
    log: bool = False
    step: float | None = None

    @property
    def ends(self) -> tuple[str, ...]:
        return (self.word(self.low), self.word(self.high))

    @property
    def described(self) -> str:
        kind = "integers" if self.whole else "numbers"
        scale = " on a logarithmic scale" if self.log else f" in steps of {self.step:g}" if self.step else ""
        return f"{kind} from {self.low:g} to {self.high:g}{scale}"

    def word(self, value: float) -> str:
        """A value as it is written: an integer, or a number of four digits."""
        if self.whole:
            return str(int(value))
        short = f"{value:.4g}"
        return short if self.low <= float(short) <= self.high else repr(float(value))

    def suggest(self, trial: optuna.Trial) -> str:
        if self.whole:
            step = int(self.step or 1)
            return self.word(trial.suggest_int(self.name, int(self.low), int(self.high), step=step, log=self.log))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a range that is not a multiple of the step in the last binary digit
            return self.word(trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log))

    def nearest(self, value: Any) -> float | None:
        """The value of the range that is nearest to a number; None for what is not a number."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return None
        value = min(max(value, self.low), self.high)
        if self.step is not None:
            value = self.low + round((value - self.low) / self.step) * self.step
        return round(value) if self.whole else float(value)


@dataclass(frozen=True)
class Choice:
    """One of several values, each as its words."""

    name: str
    text: str
    choices: tuple[str, ...]

    @property
    def ends(self) -> tuple[str, ...]:
        return self.choices

    @property
    def described(self) -> str:
        return f"one of {', '.join(self.choices)}"

    def suggest(self, trial: optuna.Trial) -> str:
        return trial.suggest_categorical(self.name, self.choices)


Dimension = Range | Choice


@dataclass(frozen=True)
class Space:
    """All fields that are searched, and the experiment that they are fields of."""

    experiment: str  # a recipe's name or path
    fixed: tuple[str, ...]  # words that all trials have
    variants: tuple[Choice, ...]  # the dimensions that decide which others there are
    dimensions: tuple[Dimension, ...]  # all others
    having: dict[str, frozenset[tuple[str, ...]]]  # by dimension: the choices of variants with which it exists
    variant_fields: frozenset[str]  # all fields that hold one of several configurations

    @property
    def all(self) -> tuple[Dimension, ...]:
        return (*self.variants, *self.dimensions)

    @property
    def num_combinations(self) -> int:
        """How many choices of variants there are."""
        return math.prod(len(choice.choices) for choice in self.variants)

    def first_words(self) -> tuple[str, ...]:
        """The words that choose the first of all variants."""
        return tuple(word for choice in self.variants for word in (_flag(choice.name), choice.choices[0]))

    def suggest(self, trial: optuna.Trial) -> tuple[str, ...]:
        """The words of a trial, each value proposed by its sampler."""
        chosen = {choice.name: choice.suggest(trial) for choice in self.variants}
        present = [dimension for dimension in self.dimensions if tuple(chosen.values()) in self.having[dimension.name]]
        values = chosen | {dimension.name: dimension.suggest(trial) for dimension in present}
        return tuple(word for name, value in values.items() for word in (_flag(name), *value.split()))

    def settings(self, words: Sequence[str] = ()) -> Experiment[Any, Any]:
        """The experiment with these words beside the fixed ones.

        Raises:
            UserError: when they do not fit it.
        """
        return _settings(self.experiment, (*self.fixed, *words))

    def value_of(self, name: str, text: str) -> Any:
        """The value of a field, as a run's config.json has it, where it is given as this text."""
        chosen = min(self.having[name]) if name in self.having else ()
        pairs = zip(self.variants, chosen, strict=False)  # those of variants, with which the field exists
        words = [word for choice, variant in pairs for word in (_flag(choice.name), variant)]
        config = to_config(self.settings((*words, _flag(name), *text.split())), self.experiment)
        return value_at(json.loads(json.dumps(config)), name)


def value_at(settings: Any, name: str) -> Any:
    """The value of a field by its dotted name, in a dataclass or in nested mappings.

    Raises:
        LookupError: when there is no such field.
    """
    for part in name.split("."):
        if isinstance(settings, dict):
            settings = settings[part]
        elif hasattr(settings, part):
            settings = getattr(settings, part)
        else:
            raise LookupError(name)
    return settings


def parse_space(experiment: str, words: Sequence[str]) -> Space:
    """The space that the words of a command line span.

    Raises:
        UserError: for an unknown field, a value that it does not take, or no field to search; one line, as elsewhere.
    """
    given = words_by_field(words)
    for name in given:
        if name.partition(".")[0] not in (*_SEARCHED, "family", "device"):
            raise UserError(
                f"unknown option {_flag(name)}; a sweep takes its own (see metarl sweep --help), --device, and fields "
                "such as --agent.learning-rate"
            )
    recipe = load(experiment)
    parts = {"agent": recipe.agent, "train": recipe.train}
    own_variants = {
        f"{part}.{name}" for part, value in parts.items() if is_dataclass(value) for name in variants(value)
    }
    texts = {name: values[0] for name, values in given.items() if len(values) == 1 and _is_searched(values[0])}
    texts = {name: text for name, text in texts.items() if _may_be_searched(recipe, name, text)}
    if not texts:
        raise UserError(
            "no field is searched; give one a range such as 1e-4:1e-2:log or a list such as 64,128,256 "
            f"(fields: metarl train {experiment} --help)"
        )
    choosing = tuple(choice_of(name, text) for name, text in texts.items() if name in own_variants)
    for name, values in given.items():  # what only some of the variants have has one value in the trials with these
        if name not in texts and any(name.startswith(f"{choice.name}.") for choice in choosing):
            texts[name] = " ".join(values)
    fixed = tuple(word for name, values in given.items() if name not in texts for word in (_flag(name), *values))
    built: dict[tuple[str, ...], tuple[list[str], Experiment[Any, Any]]] = {}
    for combination in itertools.product(*(choice.choices for choice in choosing)):
        pairs = zip(choosing, combination, strict=True)
        own = [*fixed, *(word for choice, text in pairs for word in (_flag(choice.name), text))]
        built[combination] = (own, _settings(experiment, own))
    dimensions: list[Dimension] = []
    having: dict[str, frozenset[tuple[str, ...]]] = {}
    for name, text in texts.items():
        if name in own_variants:
            continue
        having[name] = frozenset(
            combination for combination, (_, settings) in built.items() if has_field(settings, name)
        )
        own, settings = built[min(having[name] or built)]
        hint = _hint_of(settings, name) if having[name] else None
        dimension = range_of(name, text, hint) if ":" in text else choice_of(name, text)
        for end in dimension.ends:
            _settings(experiment, (*own, _flag(name), *end.split()))
        dimensions.append(dimension)
    return Space(experiment, fixed, choosing, tuple(dimensions), having, frozenset(own_variants))


def words_by_field(words: Sequence[str]) -> dict[str, list[str]]:
    """The words after each field of a command line, by the field's dotted name.

    Raises:
        UserError: for a word that belongs to no field, or a field that is given twice.
    """
    found: dict[str, list[str]] = {}
    name = None
    for part in (part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])):
        if part.startswith("--"):
            name = part.removeprefix("--").replace("-", "_")
            if name in found:
                raise UserError(f"{_flag(name)} is given more than once; leave one of them out")
            found[name] = []
        elif name is None:
            raise UserError(f"unknown argument {part!r}; after the experiment come --PART.FIELD VALUE")
        else:
            found[name].append(part)
    return found


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _is_searched(text: str) -> bool:
    return "," in text or ":" in text


def _may_be_searched(recipe: Experiment[Any, Any], name: str, text: str) -> bool:
    """Whether a field whose value looks like a range or list is searched; a path may hold commas and colons, too.

    Raises:
        UserError: for a field that would change what is measured, or how it is.
    """
    part, _, rest = name.partition(".")
    if part in _SEARCHED and rest not in (MEASURING if part == "train" else ()):
        return True
    if not has_field(recipe, name):  # which gets the usual error
        return True
    if {str, Path} & _kinds(_hint_of(recipe, name)):
        return False
    raise UserError(
        f"{_flag(name)} is {text!r}; it cannot be searched, as scores would not be comparable: give it one value"
    )


def choice_of(name: str, text: str) -> Choice:
    choices = tuple(" ".join(choice.split()) for choice in text.split(","))
    if not all(choices) or len(set(choices)) < len(choices):
        raise UserError(f"{_flag(name)} is {text!r}; must be a list of different values such as 64,128,256")
    return Choice(name, text, choices)


def range_of(name: str, text: str, hint: Any) -> Range:
    """The range of a text; the field's type says whether it is one of integers."""
    kinds = _kinds(hint)
    forms = "LOW:HIGH, LOW:HIGH:log or LOW:HIGH:STEP"
    wrong = f"{_flag(name)} is {text!r}; must be"
    match = _RANGE.fullmatch(text)
    if hint is not None and not {int, float} & kinds:
        raise UserError(f"{wrong} one value or a list, as it is not a number")
    if match is None:
        raise UserError(f"{wrong} {forms}, all of them numbers")
    whole = hint is not None and float not in kinds
    numbers = [Decimal(number) for number in match.groups()[:2]]
    step = None if match[3] in (None, "log") else Decimal(match[3])
    if whole and any(number != number.to_integral_value() for number in (*numbers, step or Decimal(1))):
        raise UserError(f"{wrong} a range of integers")
    low, high = numbers
    if not low < high:
        raise UserError(f"{wrong} {forms} with LOW below HIGH")
    if match[3] == "log" and low <= 0:
        raise UserError(f"{wrong} above 0 for a logarithmic scale")
    if step is not None and not 0 < step <= high - low:
        raise UserError(f"{wrong} {forms} with a STEP above 0, and not beyond the range")
    if step is not None:
        high = low + (high - low) // step * step
    return Range(name, text, float(low), float(high), whole, match[3] == "log", None if step is None else float(step))


def _settings(experiment: str, words: Sequence[str]) -> Experiment[Any, Any]:
    return PlannedExperiment(experiment, tuple(words)).settings()[0]


def has_field(settings: Any, name: str) -> bool:
    try:
        value_at(settings, name)
    except LookupError:
        return False
    return True


def _hint_of(settings: Any, name: str) -> Any:
    """The annotation of a field by its dotted name."""
    *path, last = name.split(".")
    owner = value_at(settings, ".".join(path)) if path else settings
    return annotations_of(type(owner)).get(last, Any)


def _kinds(hint: Any) -> set[Any]:
    """The classes that an annotation allows, those of a union each."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return {kind for part in typing.get_args(hint) for kind in _kinds(part)}
    return {hint}
