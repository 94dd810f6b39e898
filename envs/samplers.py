"""Samplers of task parameters: `Uniform(0, 3)`, `LogUniform(1 / 2, 2)`, `Normal(1, 0.1)`, `Choice`.

A sampler also defines values outside its range, for the split "ood": those given by `ood`, or by default a band next to
the range, a third as wide. For a range without negative values, the band lies above; for one without positive values,
below; for any other, there is one on each side. A range of ratios (`LogUniform`) has a band at each end, a third as
wide on a logarithmic scale. An `ood` that overlaps the range raises an error.

Two names for `ood` say where else the values lie. "extrapolation" is a band beyond the range that is a third as wide
in all, half of it at each end where there are two. "interpolation" is the middle third, which training then excludes.
The built-in robots' fields are samplers too; a `Range` has no more options than these.
"""

from __future__ import annotations

import keyword
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields, make_dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from envs.splits import check_split
from metarl.checks import positive
from metarl.protocols import Split
from metarl.records import Record

Ood = Literal["extrapolation", "interpolation"]

OOD_WIDTH = 1 / 3  # width of the band outside, relative to the range
OOD_MARGIN = 1e-3  # fraction of the default band, or of a given one, that is left out next to the range
NAMED_OOD_MARGIN = 1e-4  # the same for an `ood` that has a name; both keep rounded values outside the training range
NORMAL_REACH = 3.0  # standard deviations on each side that a `Normal` covers
_NUM_TRIAL_DRAWS = 256
_SLACK = 1e-5  # of fractions of a range, as values are float32


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
        """Whether each value can occur in training: [...] bool."""
        ...


def check_samplers(samplers: Mapping[str, Any]) -> None:
    """Check the field `tasks` of a family: samplers by parameter name, each of which is tried.

    Raises:
        ValueError: when it is empty, a value is not a sampler, a name is reserved, or draws are not finite numbers.
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
        check_draws(name, sampler, (_NUM_TRIAL_DRAWS,))


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


def draws(sampler: Sampler) -> Tensor:
    """Many values from every split."""
    generator = torch.Generator().manual_seed(0)
    splits: tuple[Split, ...] = ("train", "ood") if sampler.has_ood else ("train",)
    return torch.cat([sampler.sample((1000,), split, generator) for split in splits])


def check_sampler_split(family: str, split: str, samplers: Mapping[str, Sampler]) -> None:
    """Check that a family has a split; it has "ood" if any parameter has values outside its range.

    Raises:
        ValueError: when it does not.
    """
    has_ood = any(sampler.has_ood for sampler in samplers.values())
    check_split(family, split, has_ood=has_ood, reason="" if has_ood else "no parameter has values outside its range")


@lru_cache
def task_record(names: tuple[str, ...], parent: type[Any] = Record) -> type[Any]:
    """A record class with a tensor per name, in addition to the fields of `parent`.

    Equal arguments give the same class, because record classes are registered with torch.
    """
    new_fields: list[Any] = [(name, Tensor) for name in names]
    return make_dataclass("CustomTasks", new_fields, bases=(parent,), frozen=True, kw_only=True)


def attribute(name: str) -> str:
    """The field of a task record that holds a parameter: its name with underscores for dots."""
    return name.replace(".", "_")


def all_inside(tasks: Any, samplers: Mapping[str, Sampler]) -> Tensor:
    """Whether all parameters of each task are inside their training ranges: [N] bool."""
    inside = [
        sampler.contains(getattr(tasks, attribute(name))).reshape(len(tasks), -1).all(1)
        for name, sampler in samplers.items()
    ]
    return torch.stack(inside).all(0)


def check_fields(family: Any, kind: type[Any], *names: str) -> None:
    """Check fields of a built-in family that are samplers of one kind, each of which is tried.

    Raises:
        ValueError: naming the first that is of another kind, or draws numbers that are not finite.
    """
    for name in names:
        sampler = getattr(family, name)
        if not isinstance(sampler, kind):
            example = next(field.default for field in fields(family) if field.name == name)
            raise ValueError(f"{name} is {sampler!r}; must be a sampler such as {example!r}")
        for split in ("train", "ood"):
            if not bool(sampler.sample((_NUM_TRIAL_DRAWS,), split, torch.Generator().manual_seed(0)).isfinite().all()):
                raise ValueError(f"{name} is {sampler!r}, which draws infinite numbers; must be a smaller range")


@dataclass(frozen=True, repr=False)
class Range:
    """Numbers uniform between `low` and `high`."""

    low: float  # lower end of the range
    high: float  # upper end of the range
    _: KW_ONLY
    ood: Sequence[float] | Ood = "extrapolation"  # position of split "ood": beyond, in the middle third, or a range

    def __post_init__(self) -> None:
        _check_order(self)

    def __repr__(self) -> str:
        """The constructor call, without default values."""
        return shown(self)

    @property
    def has_ood(self) -> bool:
        return True

    def sample(self, shape: Sequence[int], split: Split, generator: torch.Generator) -> Tensor:
        return _evenly(self, uniform_fractions(shape, generator), split)

    def contains(self, values: Tensor) -> Tensor:
        fractions = (values - self.low) / (self.high - self.low)
        return _between(values, self.low, self.high) & ~_is_left_out(fractions, self.ood)


@dataclass(frozen=True, repr=False)
class Selection:
    """The common options of samplers: the elements of a robot that they apply to.

    Only robots have elements; see `envs.locomotion.custom_robot`.
    """

    _: KW_ONLY
    bodies: Sequence[str] = ()  # names of the bodies that the parameter applies to; (): all
    joints: Sequence[str] = ()  # names of the joints that the parameter applies to; (): all
    geoms: Sequence[str] = ()  # names of the geoms that the parameter applies to; (): all
    actuators: Sequence[str] = ()  # names of the actuators that the parameter applies to; (): all
    sensors: Sequence[str] = ()  # names of the sensors that the parameter applies to; (): all
    scale: bool = True  # whether the values multiply the model's own, rather than replace them
    shared: bool = False  # whether all elements have one value, rather than one each

    def __repr__(self) -> str:
        """The constructor call, without default values."""
        return shown(self)


@dataclass(frozen=True, repr=False)
class Uniform(Selection, Range):
    """Numbers uniform between `low` and `high`."""

    _: KW_ONLY
    ood: tuple[float, ...] | Ood = ()  # range of the split "ood", or one of the two names; (): the default band


@dataclass(frozen=True, repr=False)
class LogUniform(Selection):
    """Positive numbers between `low` and `high`, uniform in the logarithm; for ratios, e.g. from 1/2 to 2."""

    low: float  # lower end of the range
    high: float  # upper end of the range
    _: KW_ONLY
    ood: tuple[float, ...] | Ood = ()  # range of the split "ood", or one of the two names; (): the default band

    def __post_init__(self) -> None:
        _check_finite(self, "low", "high")
        positive(self, "low")
        _check_order(self)
        if not isinstance(self.ood, str):
            positive(self, "ood")

    @property
    def has_ood(self) -> bool:
        return True

    def sample(self, shape: Sequence[int], split: Split, generator: torch.Generator) -> Tensor:
        fraction, low, high = _placed(self, uniform_fractions(shape, generator), split, below=True, above=True)
        return low * (high / low) ** fraction

    def contains(self, values: Tensor) -> Tensor:
        fractions = (values / self.low).log() / math.log(self.high / self.low)
        return _between(values, self.low, self.high) & ~_is_left_out(fractions, self.ood)


@dataclass(frozen=True, repr=False)
class Normal(Selection):
    """Normal numbers, truncated at three standard deviations from the mean (which one in 370 would exceed)."""

    mean: float  # mean of the distribution
    std: float  # standard deviation of the distribution
    _: KW_ONLY
    ood: Sequence[float] = ()  # range of the split "ood"; (): the default band

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
        fraction = uniform_fractions(shape, generator)
        if split == "ood":
            return _evenly(self, fraction, split)
        beyond = math.erfc(NORMAL_REACH / math.sqrt(2)) / 2  # probability in each tail
        quantile = torch.special.ndtri((beyond + (1 - 2 * beyond) * fraction).double())
        return (self.mean + self.std * quantile).float().clamp(self.low, self.high)

    def contains(self, values: Tensor) -> Tensor:
        return _between(values, self.low, self.high)


@dataclass(frozen=True, repr=False)
class Choice(Selection):
    """One of several numbers, all equally likely; the split "ood" has the values of `ood`, if given."""

    values: Sequence[float]  # numbers to choose from
    _: KW_ONLY
    ood: Sequence[float] = ()  # numbers of the split "ood"; (): none

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
        """Values [*shape]; without `ood`, training values in the split "ood" too, if another parameter lies outside."""
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
    """Check the range of the split "ood".

    Raises:
        ValueError: when `ood` is not two numbers in order, or overlaps the range by more than an end point.
    """
    ood, names = sampler.ood, () if isinstance(sampler, Normal) else get_args(Ood)
    if not ood or (isinstance(ood, str) and ood in names):
        return
    if isinstance(ood, str):
        raise ValueError(f"ood is {ood!r}; must be {' or '.join((*names, 'two numbers, the low and the high end'))}")
    ordered = len(ood) == 2 and all(isinstance(end, (int, float)) and math.isfinite(end) for end in ood)
    if not ordered or not ood[0] < ood[1]:
        raise ValueError(f"ood is {ood!r}; must be two numbers, the low and the high end")
    if ood[0] < sampler.high and ood[1] > sampler.low:
        inside = f"{sampler.low:g} to {sampler.high:g}"
        raise ValueError(f"ood is {ood!r}; must lie outside the training range, {inside}")


def uniform_fractions(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Fractions [*shape] float32 of a range, uniform in [0, 1), on the generator's device."""
    return torch.rand(tuple(shape), generator=generator, device=generator.device)


def fractions_of_split(fractions: Tensor, split: Split, ood: Ood, *, below: bool, above: bool) -> Tensor:
    """Map fractions [0, 1) to those of a range that are the tasks of a split, for an `ood` that has a name.

    below, above: the ends beyond which tasks are out of distribution with "extrapolation".
    """
    if ood == "interpolation":
        if split == "ood":
            return (1 + NAMED_OOD_MARGIN + (1 - 2 * NAMED_OOD_MARGIN) * fractions) / 3
        outer = fractions * (2 / 3)
        return torch.where(outer < 1 / 3, outer, outer + 1 / 3)
    if split != "ood":
        return fractions
    if below and above:
        signed = 2 * fractions - 1
        distance = (NAMED_OOD_MARGIN + (1 - NAMED_OOD_MARGIN) * signed.abs()) / 6
        return torch.where(signed < 0, -distance, 1 + distance)
    distance = (NAMED_OOD_MARGIN + (1 - NAMED_OOD_MARGIN) * fractions) / 3
    return 1 + distance if above else -distance


def fractions_in_training(fractions: Tensor, ood: Sequence[float] | Ood) -> Tensor:
    """Whether each fraction of a range can occur in training: [...] bool; with a tolerance for rounding."""
    return (fractions >= -_SLACK) & (fractions <= 1 + _SLACK) & ~_is_left_out(fractions, ood)


def shown(sampler: Any) -> str:
    """The constructor call of a sampler, without default values."""
    in_order = sorted(fields(sampler), key=lambda field: bool(field.kw_only))
    given = [field.name for field in in_order if getattr(sampler, field.name) != field.default]
    return f"{type(sampler).__name__}({', '.join(f'{name}={getattr(sampler, name)!r}' for name in given)})"


def _is_left_out(fractions: Tensor, ood: Sequence[float] | Ood) -> Tensor:
    """Whether each fraction lies in the middle third, if training excludes it: [...] bool."""
    if ood != "interpolation":
        return torch.zeros_like(fractions, dtype=torch.bool)
    return (fractions > 1 / 3 + _SLACK) & (fractions < 2 / 3 - _SLACK)


def _evenly(sampler: Any, fractions: Tensor, split: Split) -> Tensor:
    """Map fractions [0, 1) to values of the range from `low` to `high`, or of the bands outside it."""
    fractions, low, high = _placed(sampler, fractions, split, below=sampler.low < 0, above=sampler.high > 0)
    return low + (high - low) * fractions


def _placed(sampler: Any, fractions: Tensor, split: Split, below: bool, above: bool) -> tuple[Tensor, float, float]:
    """Fractions for the tasks of a split, and the ends of the range that they are fractions of."""
    ood = sampler.ood
    if isinstance(ood, str):
        fractions = fractions_of_split(fractions, split, ood, below=below, above=above)  # pyright: ignore[reportArgumentType]
    elif split == "ood" and ood:
        return fractions.clamp(OOD_MARGIN, 1 - OOD_MARGIN), *ood  # an end may belong to the training range too
    elif split == "ood":
        fractions = _outside(fractions, below, above)
    return fractions, sampler.low, sampler.high


def _outside(fraction: Tensor, below: bool, above: bool) -> Tensor:
    """Map fractions [0, 1) to positions outside the range, in units of the range; never one of its ends."""
    if below and above:
        distance = (2 * fraction) % 1  # the first half of the fractions goes below, the second above
        lower = fraction < 0.5
    else:
        distance = fraction
        lower = torch.full_like(fraction, below, dtype=torch.bool)
    distance = OOD_WIDTH * (1 - distance).clamp(min=OOD_MARGIN)
    return torch.where(lower, -distance, 1 + distance)


def _between(values: Tensor, low: float, high: float) -> Tensor:
    slack = 2e-7 * max(abs(low), abs(high))  # values are float32
    return (values >= low - slack) & (values <= high + slack)
