"""Ranges that a task's parameters are drawn from: `Uniform(0, 3)`, `LogUniform(1 / 2, 2)`, `Normal(1, 0.1)`, `Choice`.

A range declares what lies outside of it too, for the split "ood": what `ood` says, or else a band beyond the range, a
third as wide. Of a range that holds no negative value, that is the band above; of one without positive values, the band
below; of any other, both. A range of ratios (`LogUniform`) has a band at either end, a third as wide on a logarithmic
scale. What is outside must be: an `ood` that overlaps the range is refused.
"""

from __future__ import annotations

import keyword
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields, make_dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from envs.splits import check_split
from metarl.checks import positive
from metarl.protocols import Split
from metarl.records import Record

OOD_WIDTH = 1 / 3  # of the band outside, relative to the range
NORMAL_REACH = 3.0  # standard deviations to either side that a `Normal` covers
_DRAWS_TO_TRY = 256


@runtime_checkable
class Sampler(Protocol):
    """A distribution over the values of one parameter."""

    @property
    def has_ood(self) -> bool:
        """Whether there are values outside the range."""
        ...

    def sample(self, shape: Sequence[int], split: Split, generator: torch.Generator) -> Tensor:
        """Values [*shape] float32 on the generator's device."""
        ...

    def contains(self, values: Tensor) -> Tensor:
        """Which values training can draw: [...] bool."""
        ...


def check_samplers(samplers: Mapping[str, Any]) -> None:
    """Check the field `tasks` of a family: samplers by the names of parameters, each of which is tried.

    Raises:
        ValueError: when it is empty, a value is not a sampler, a name is taken, or draws are of no use.
    """
    if not samplers:
        raise ValueError("tasks is empty; must have a parameter, such as target=Uniform(0, 3)")
    names: dict[str, str] = {}  # the parameters by their fields in a record
    for name, sampler in samplers.items():
        if not isinstance(sampler, Sampler):
            raise ValueError(f"task {name!r} is {sampler!r}; must be a sampler such as Uniform(0, 3)")
        field = attribute(name)
        if not field.isidentifier():
            raise ValueError(f"{name!r} is not a valid parameter name; use letters, digits, underscores and dots")
        if keyword.iskeyword(field) or hasattr(Record, field):
            users = "Python's syntax" if keyword.iskeyword(field) else "all task records"
            raise ValueError(f"{name!r} is not a valid parameter name, as it is taken by {users}; use another")
        if field in names:
            raise ValueError(f"tasks has {names[field]!r} and {name!r}, which are one field of a task; rename one")
        names[field] = name
        check_draws(name, sampler, (_DRAWS_TO_TRY,))


def check_draws(name: str, sampler: Sampler, shape: tuple[int, ...]) -> None:
    """Draw from a parameter's sampler for every split that it has, with a generator of its own.

    Raises:
        ValueError: naming the parameter, when the sampler fails or gives something else than finite numbers [*shape].
    """
    splits: tuple[Split, ...] = ("train", "ood") if sampler.has_ood else ("train",)
    for split in splits:
        try:
            values = sampler.sample(shape, split, torch.Generator().manual_seed(0))
        except Exception as error:  # whatever a sampler of the user's own raises
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"the sampler of task {name!r} fails for the split {split!r}: {reason}") from error
        if not isinstance(values, Tensor) or tuple(values.shape) != shape:
            found = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(f"the sampler of task {name!r} gives {found}; must be a tensor of shape {shape}")
        bad = values[~values.isfinite()]
        if len(bad):
            drawn = f"draws {float(bad[0])} for the split {split!r}"
            raise ValueError(f"the sampler of task {name!r} {drawn}; must be finite numbers")


def check_sampler_split(family: str, split: str, samplers: Mapping[str, Sampler]) -> None:
    """Check that a family has a split; it has "ood" if a parameter has values outside its range.

    Raises:
        ValueError: when it has not.
    """
    has_ood = any(sampler.has_ood for sampler in samplers.values())
    check_split(family, split, has_ood=has_ood, reason="" if has_ood else "no parameter has values outside its range")


@lru_cache
def task_record(names: tuple[str, ...], parent: type[Any] = Record) -> type[Any]:
    """A record with a tensor for each name, beside the fields of `parent`.

    One class for equal arguments, as records are registered with torch.
    """
    new_fields: list[Any] = [(name, Tensor) for name in names]
    return make_dataclass("CustomTasks", new_fields, bases=(parent,), frozen=True, kw_only=True)


def attribute(name: str) -> str:
    """The field of a task record that holds a parameter: dots are underscores."""
    return name.replace(".", "_")


def all_inside(tasks: Any, samplers: Mapping[str, Sampler]) -> Tensor:
    """Which tasks have each of their parameters where training can draw it: [N] bool."""
    inside = [
        sampler.contains(getattr(tasks, attribute(name))).reshape(len(tasks), -1).all(1)
        for name, sampler in samplers.items()
    ]
    return torch.stack(inside).all(0)


@dataclass(frozen=True, repr=False)
class Selection:
    """What every range may say beside its values: to which elements of a robot they belong, and what lies outside.

    For the elements see `envs.locomotion.custom_robot`; only robots have them.
    """

    _: KW_ONLY
    bodies: Sequence[str] = ()
    joints: Sequence[str] = ()
    geoms: Sequence[str] = ()
    actuators: Sequence[str] = ()
    scale: bool = True  # the values multiply the model's own; if not, they replace them
    shared: bool = False  # one value for all of these elements; if not, one for each
    ood: Sequence[float] = ()  # low and high of the split "ood", or the values of a choice; (): see the module

    def __repr__(self) -> str:
        """Without what is left as it is by default."""
        in_order = sorted(fields(self), key=lambda field: bool(field.kw_only))
        given = [field.name for field in in_order if getattr(self, field.name) != field.default]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in given)})"


@dataclass(frozen=True, repr=False)
class Uniform(Selection):
    """Numbers between `low` and `high`, all equally likely."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_order(self)

    @property
    def has_ood(self) -> bool:
        return True

    def sample(self, shape: Sequence[int], split: Split, generator: torch.Generator) -> Tensor:
        share = torch.rand(tuple(shape), generator=generator, device=generator.device)
        return _evenly(self, share, split)

    def contains(self, values: Tensor) -> Tensor:
        return _between(values, self.low, self.high)


@dataclass(frozen=True, repr=False)
class LogUniform(Selection):
    """Positive numbers between `low` and `high` whose logarithms are all equally likely: ratios, such as 1/2 to 2."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_finite(self, "low", "high")
        positive(self, "low")
        _check_order(self)
        if self.ood:
            positive(self, "ood")

    @property
    def has_ood(self) -> bool:
        return True

    def sample(self, shape: Sequence[int], split: Split, generator: torch.Generator) -> Tensor:
        share = torch.rand(tuple(shape), generator=generator, device=generator.device)
        low, high = self.low, self.high
        if split == "ood" and self.ood:
            share, (low, high) = _off_the_ends(share), self.ood
        elif split == "ood":
            share = _outside(share, below=True, above=True)
        return low * (high / low) ** share

    def contains(self, values: Tensor) -> Tensor:
        return _between(values, self.low, self.high)


@dataclass(frozen=True, repr=False)
class Normal(Selection):
    """Normal numbers, none farther from the mean than three standard deviations (one in 370 would be)."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        _check_finite(self, "mean", "std")
        positive(self, "std")
        _check_ood(self)

    @property
    def low(self) -> float:
        return self.mean - NORMAL_REACH * self.std

    @property
    def high(self) -> float:
        return self.mean + NORMAL_REACH * self.std

    @property
    def has_ood(self) -> bool:
        return True

    def sample(self, shape: Sequence[int], split: Split, generator: torch.Generator) -> Tensor:
        share = torch.rand(tuple(shape), generator=generator, device=generator.device)
        if split == "ood":
            return _evenly(self, share, split)
        beyond = math.erfc(NORMAL_REACH / math.sqrt(2)) / 2  # of the probability, at either end
        quantile = torch.special.ndtri((beyond + (1 - 2 * beyond) * share).double())
        return (self.mean + self.std * quantile).float().clamp(self.low, self.high)

    def contains(self, values: Tensor) -> Tensor:
        return _between(values, self.low, self.high)


@dataclass(frozen=True, repr=False)
class Choice(Selection):
    """One of some numbers, all equally likely; outside of them lies what `ood` names, and without it nothing."""

    values: Sequence[float]

    def __post_init__(self) -> None:
        for name, values in (("values", self.values), ("ood", self.ood)):
            finite = all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
            if not finite or (not values and name == "values"):
                raise ValueError(f"{name} is {values!r}; must be a list of finite numbers")
        if shared := sorted(set(self.values) & set(self.ood)):
            raise ValueError(f"ood has {shared[0]}, which is also in values; the two must not overlap")

    @property
    def has_ood(self) -> bool:
        return bool(self.ood)

    def sample(self, shape: Sequence[int], split: Split, generator: torch.Generator) -> Tensor:
        """Values [*shape]; of the split "ood" too, for tasks that lie outside by another parameter."""
        values = self.ood if split == "ood" and self.ood else self.values
        index = torch.randint(len(values), tuple(shape), generator=generator, device=generator.device)
        return torch.tensor(values, dtype=torch.float32, device=generator.device)[index]

    def contains(self, values: Tensor) -> Tensor:
        return (values.unsqueeze(-1) == torch.tensor(self.values, dtype=values.dtype, device=values.device)).any(-1)


def _check_finite(sampler: Any, *names: str) -> None:
    for name in names:
        value = getattr(sampler, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{name} is {value!r}; must be a finite number")


def _check_order(sampler: Any) -> None:
    _check_finite(sampler, "low", "high")
    if not sampler.low < sampler.high:
        raise ValueError(f"low is {sampler.low}; must be less than high, {sampler.high}")
    _check_ood(sampler)


def _check_ood(sampler: Any) -> None:
    """
    Raises:
        ValueError: when `ood` is not two numbers in order, or shares more than an end with the range.
    """
    ood = sampler.ood
    if not ood:
        return
    ordered = len(ood) == 2 and all(isinstance(end, (int, float)) and math.isfinite(end) for end in ood)
    if not ordered or not ood[0] < ood[1]:
        raise ValueError(f"ood is {ood!r}; must be two numbers, the low and the high end")
    if ood[0] < sampler.high and ood[1] > sampler.low:
        inside = f"{sampler.low:g} to {sampler.high:g}"
        raise ValueError(f"ood is {ood!r}; must lie outside the training range, {inside}")


def _evenly(sampler: Any, share: Tensor, split: Split) -> Tensor:
    """Shares [0, 1) as values of the range from `low` to `high`, or of what lies outside of it."""
    low, high = sampler.low, sampler.high
    if split == "ood" and sampler.ood:
        share, (low, high) = _off_the_ends(share), sampler.ood
    elif split == "ood":
        share = _outside(share, below=low < 0, above=high > 0)
    return low + (high - low) * share


def _off_the_ends(share: Tensor) -> Tensor:
    """Shares [0, 1), but never 0 or 1: an end may be one of the range of training too."""
    return share.clamp(1e-3, 1 - 1e-3)


def _outside(share: Tensor, below: bool, above: bool) -> Tensor:
    """Shares [0, 1) of the range, as shares of the bands outside it; never one of its ends."""
    if below and above:
        distance = (2 * share) % 1  # the first half of the shares goes below, the second above
        lower = share < 0.5
    else:
        distance = share
        lower = torch.full_like(share, below, dtype=torch.bool)
    distance = OOD_WIDTH * (1 - distance).clamp(min=1e-3)
    return torch.where(lower, -distance, 1 + distance)


def _between(values: Tensor, low: float, high: float) -> Tensor:
    slack = 2e-7 * max(abs(low), abs(high))  # values are float32
    return (values >= low - slack) & (values <= high + slack)
