"""The common parts of wrappers: a family around a family, and its environment."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor

from envs.samplers import Sampler, all_inside, draws, task_record
from envs.splits import check_split
from metarl.protocols import KnowsVersions, Split, VectorEnv
from metarl.records import Record


@dataclass(frozen=True)
class Wrapped:
    """Base class of wrappers, which are families."""

    family: Any  # the inner `TaskFamily`

    suffix: ClassVar[str]  # suffix of the name
    strengths: ClassVar[tuple[str, ...]] = ()  # names of fields that are a number or a range

    def __post_init__(self) -> None:
        tasks = vars(self.family.sample(1, "train", torch.Generator()))
        for name in self.strengths:
            value = getattr(self, name)
            is_range = isinstance(value, Sampler)
            if is_range and name in tasks:
                raise ValueError(f"{name} is a range, but tasks of {self.family.name} already have {name}")
            if not is_range and (isinstance(value, bool) or not isinstance(value, (int, float))):
                raise ValueError(f"{name} is {value!r}; must be a number or a range")
            least = float(draws(value).min()) if is_range else value
            if not 0 <= least < math.inf:
                raise ValueError(f"{name} is {value}; must be zero or positive, and finite")

    @property
    def name(self) -> str:
        return f"{self.family.name}_{self.suffix}"

    @property
    def horizon(self) -> int:
        return self.family.horizon

    @property
    def num_episodes(self) -> int:
        return self.family.num_episodes

    @property
    def observation_space(self) -> spaces.Box:
        return self.family.observation_space

    @property
    def action_space(self) -> spaces.Box | spaces.Discrete:
        return self.family.action_space

    @property
    def privileged_size(self) -> int:
        """The size of the inner family's privileged observations, which pass through."""
        return getattr(self.family, "privileged_size", 0)

    @property
    def parameters(self) -> Mapping[str, Sampler]:
        """The task parameters added by this wrapper."""
        values = {name: getattr(self, name) for name in self.strengths}
        return {name: value for name, value in values.items() if isinstance(value, Sampler)}

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> Record:
        """The inner family's tasks with this wrapper's parameters.

        In the split "ood", all parameters that can lie outside do; the others are as in "test".

        Raises:
            ValueError: for an unknown split, or for "ood" if no parameter can lie outside.
        """
        inner_has_ood = self._inner_has_ood()
        has_ood = inner_has_ood or any(sampler.has_ood for sampler in self.parameters.values())
        check_split(self.name, split, has_ood=has_ood)
        inner_split = "test" if split == "ood" and not inner_has_ood else split
        tasks = self.family.sample(num_tasks, inner_split, generator)
        if not self.parameters:
            return tasks
        values = {name: sampler.sample((num_tasks,), split, generator) for name, sampler in self.parameters.items()}
        return task_record(tuple(values), type(tasks))(**vars(tasks), **values)

    @property
    def in_training_range(self) -> Callable[[Record], Tensor] | None:
        """A test whether tasks can occur in training; None if the inner family has "ood" tasks but no such test."""
        inner: Callable[[Record], Tensor] | None = getattr(self.family, "in_training_range", None)
        own = self.parameters
        if not own:
            return inner
        if inner is None:
            return None if self._inner_has_ood() else lambda tasks: all_inside(tasks, own)
        return lambda tasks: inner(tasks) & all_inside(tasks, own)

    def bounds(self, tasks: Record, num_episodes: int) -> Mapping[str, Tensor | Sequence[float]]:
        """Empty: the inner family's hold without what lies between."""
        return {}

    def versions(self) -> dict[str, str]:
        """Those of the interpreter that runs the inner family; empty where it is ours."""
        return self.family.versions() if isinstance(self.family, KnowsVersions) else {}

    def _inner_has_ood(self) -> bool:
        try:
            self.family.sample(1, "ood", torch.Generator())
        except ValueError:
            return False
        return True


class SameTask(Wrapped):
    """Base class of wrappers under which rewards and observations stay the family's own, and so do name and bounds."""

    suffix: ClassVar[str] = ""

    @property
    def name(self) -> str:
        return self.family.name

    def bounds(self, tasks: Record, num_episodes: int) -> Mapping[str, Tensor | Sequence[float]]:
        return self.family.bounds(tasks, num_episodes)


class WrappedEnv:
    """An environment around another: a `VectorEnv` that keeps the inner one's optional abilities."""

    def __init__(self, env: VectorEnv, family: Wrapped) -> None:
        self.env, self.family = env, family
        self.num_rows, self.device = env.num_rows, env.device
        self.observation_space, self.action_space = family.observation_space, family.action_space
        for name in ("render", "seconds_per_step", "metric_names"):  # attributes of `Renders` and `Measures`
            if hasattr(env, name):
                setattr(self, name, getattr(env, name))

    def __getattr__(self, name: str) -> Any:
        """Attributes beyond the interface, e.g. `num_diverged` or `close`."""
        if name in ("env", "carried"):  # not set yet; not all that a step here depends on
            raise AttributeError(name)
        return getattr(self.env, name)

    def strength(self, name: str, tasks: Record) -> Tensor:
        """The strength in each row: [B] float32."""
        value = getattr(self.family, name)
        if isinstance(value, Sampler):
            return getattr(tasks, name).repeat_interleave(self.num_rows // len(tasks)).to(self.device)
        return torch.full((self.num_rows,), float(value), device=self.device)
