"""Rewards that add up from named terms, and episodes that end for named reasons; each of them is measured apart.

    MujocoFamily(
        reward={"speed": (1.0, speed), "energy": (-0.01, power)},
        terminated={"fall": fallen, "far": far_away},
        ...
    )

An episode's metrics then are the sum of each weighted term ("reward_speed"), whose total is its return, and whether it
ended for each reason ("ended_by_fall"): one or zero, so the mean over tasks is the fraction of episodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

REWARD, ENDED_BY = "reward_", "ended_by_"  # how the metrics of terms and of reasons begin

Function = Callable[[Any, Tensor, Any], Tensor]  # (physics, action [B, A], task) -> [B]
Condition = Callable[[Any, Any], Tensor]  # (physics, task) -> [B] bool


@dataclass(frozen=True)
class Term:
    """A term of a reward."""

    weight: float  # factor by which the term counts in the reward
    function: Function  # function (physics, action, task) that returns the term before weighting, [B]

    def __post_init__(self) -> None:
        if isinstance(self.weight, bool) or not isinstance(self.weight, (int, float)) or not math.isfinite(self.weight):
            raise ValueError(f"weight is {self.weight!r}; must be a finite number")
        if not callable(self.function):
            raise ValueError(f"function is {self.function!r}; must be a function")


@dataclass(frozen=True)
class FeetAirTime:
    """A term for long steps: over the feet that touch down, the sum of the time in the air less `target`, s.

    Rudin et al. Learning to walk in minutes using massively parallel deep reinforcement learning (2021), legged_gym.
    Robots that may be told to stand need a function of their own around it that is zero then. Each foot's geom needs a
    contact sensor in the file, as `physics.touches` does.

    Deviation: a foot is in the air whenever its sensor finds no contact; legged_gym, whose simulator misses some, also
    takes the step after a contact for one.
    """

    feet: tuple[str, ...]  # names of the feet's geoms
    target: float = 0.5  # time in the air for which the term is zero, in seconds

    def __call__(self, physics: Any, action: Tensor, task: Any) -> Tensor:
        """[B] s"""
        times = torch.stack([physics.landed_after(foot) for foot in self.feet], 1)
        return torch.where(times > 0, times - self.target, 0.0).sum(1)


def terms_of(reward: Any) -> Any:
    """A reward as a family keeps it: the function itself, or a `Term` by name.

    reward: a function, or a mapping of names to a `Term` or a pair (weight, function).

    Raises:
        ValueError: for anything else, or a name that cannot be one of a metric.
    """
    if not isinstance(reward, Mapping):
        return _function("reward", reward)
    terms = {}
    for name, term in _named("reward", reward).items():
        if isinstance(term, (tuple, list)) and len(term) == 2:
            try:
                term = Term(*term)
            except ValueError as error:
                raise ValueError(f"reward {name!r}: {error}") from error
        if not isinstance(term, Term):
            raise ValueError(f"reward {name!r} is {term!r}; must be a pair (weight, function)")
        terms[name] = term
    return terms


def reasons_of(terminated: Any) -> Any:
    """The end of episodes as a family keeps it: None, a function, or a function by the name of its reason.

    Raises:
        ValueError: for anything else, or a name that cannot be one of a metric.
    """
    if terminated is None or not isinstance(terminated, Mapping):
        return None if terminated is None else _function("terminated", terminated)
    named = _named("terminated", terminated)
    return {name: _function(f"terminated {name!r}", function) for name, function in named.items()}


def part_names(terms: Iterable[str], reasons: Iterable[str]) -> tuple[str, ...]:
    """The metrics of these terms and reasons."""
    return (*(REWARD + name for name in terms), *(ENDED_BY + name for name in reasons))


def _named(field: str, values: Mapping[Any, Any]) -> Mapping[str, Any]:
    if not values:
        raise ValueError(f"{field} is empty; must be a function, or functions by name")
    for name in values:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"{field} has {name!r}; must be names of letters, digits, underscores")
    return values


def _function(what: str, function: Any) -> Any:
    if not callable(function):
        raise ValueError(f"{what} is {function!r}; must be a function")
    return function
