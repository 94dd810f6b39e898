"""Families of functions for few-shot regression: sinusoids, and sums of two harmonics."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from metarl.checks import at_least
from metarl.fewshot.episode import FewShotEpisode
from metarl.fewshot.problem import Regression
from metarl.protocols import Split
from metarl.records import Examples, Record

Range = tuple[float, float]


@dataclass(frozen=True)
class FunctionFamily:
    """A family of scalar functions, with fresh random points in every episode."""

    shots: int = 10  # number of support points per task
    queries: int = 10  # number of query points per task

    test_queries = 100
    varies = False
    problem = Regression(input_size=1, output_size=1)
    tasks_have = "parameters"

    def __post_init__(self) -> None:
        at_least(self, 1, "shots", "queries")

    @property
    def training(self) -> Self:
        return self

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> Any:
        """Functions with leading axis `num_tasks`.

        Raises:
            ValueError: when the split is not declared.
        """
        raise NotImplementedError

    def examples(self, tasks: Any, num_examples: int, generator: torch.Generator) -> Examples:
        """Fresh points of each function: x and y [N, num_examples, 1]."""
        raise NotImplementedError

    def episode(
        self,
        num_tasks: int,
        split: Split,
        *,
        shots: int | None = None,
        queries: int | None = None,
        generator: torch.Generator,
    ) -> FewShotEpisode:
        """Fresh functions and fresh points of them; see FewShotFamily."""
        tasks = self.sample(num_tasks, split, generator)
        return self._episode(tasks, self.shots if shots is None else shots, queries, generator)

    def episode_of(self, tasks: Any, split: Split, *, generator: torch.Generator) -> FewShotEpisode:
        """Fresh points of given functions."""
        return self._episode(tasks, self.shots, None, generator)

    def _episode(self, tasks: Any, shots: int, queries: int | None, generator: torch.Generator) -> FewShotEpisode:
        support = self.examples(tasks, shots, generator)
        query = self.examples(tasks, self.queries if queries is None else queries, generator)
        return FewShotEpisode(support, query, tasks)


@dataclass(frozen=True)
class SinusoidTasks(Record):
    """The sinusoid of each task."""

    amplitude: Tensor  # [N]
    phase: Tensor  # [N] radians


@dataclass(frozen=True)
class Sinusoid(FunctionFamily):
    """y = amplitude sin(x - phase), amplitude ~ U[0.1, 5], phase ~ U[0, pi], x ~ U[-5, 5].

    Finn, Abbeel, Levine. Model-agnostic meta-learning for fast adaptation of deep networks (2017).
    Out of distribution: amplitudes and phases beyond the training ranges.
    """

    amplitude: Range = (0.1, 5.0)  # range of amplitudes
    phase: Range = (0.0, math.pi)  # range of phases, in radians
    x: Range = (-5.0, 5.0)  # range of inputs
    ood_amplitude: Range = (5.0, 8.0)  # range of amplitudes in split "ood"
    ood_phase: Range = (math.pi, 1.5 * math.pi)  # range of phases in split "ood", in radians

    name = "sinusoid"

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("amplitude", "phase", "x", "ood_amplitude", "ood_phase"):
            low, high = getattr(self, field)
            if not low < high:
                raise ValueError(f"{field} is {(low, high)}; must be a range from a lower to a higher number")

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> SinusoidTasks:
        ood = _is_ood(split, self.name)
        amplitude = _uniform(self.ood_amplitude if ood else self.amplitude, (num_tasks,), generator)
        return SinusoidTasks(amplitude, _uniform(self.ood_phase if ood else self.phase, (num_tasks,), generator))

    def examples(self, tasks: SinusoidTasks, num_examples: int, generator: torch.Generator) -> Examples:
        x = _uniform(self.x, (len(tasks), num_examples, 1), generator)
        return Examples(x, tasks.amplitude[:, None, None] * (x - tasks.phase[:, None, None]).sin())


@dataclass(frozen=True)
class HarmonicTasks(Record):
    """The function of each task and the centre of its inputs."""

    amplitude: Tensor  # [N, 2], for the base frequency and its double
    phase: Tensor  # [N, 2] radians
    frequency: Tensor  # [N] radians per unit of x
    center: Tensor  # [N], centre of the inputs


@dataclass(frozen=True)
class Harmonic(FunctionFamily):
    """y = a1 sin(w x + b1) + a2 sin(2 w x + b2) + noise, with inputs around a random centre: a, x - centre ~ N(0, 1).

    After Lacoste et al. Uncertainty in multitask transfer learning (2018): w ~ U[5, 7], b ~ U[0, 2 pi],
    center ~ U[-4, 4]. Out of distribution: higher frequencies.
    """

    frequency: Range = (5.0, 7.0)  # range of frequencies w, in radians per unit of x
    center: Range = (-4.0, 4.0)  # range of the inputs' centres
    noise_std: float = 0.1  # standard deviation of the noise on y
    ood_frequency: Range = (7.0, 9.0)  # range of frequencies in split "ood", in radians per unit of x

    name = "harmonic"

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("frequency", "center", "ood_frequency"):
            low, high = getattr(self, field)
            if not low < high:
                raise ValueError(f"{field} is {(low, high)}; must be a range from a lower to a higher number")
        if self.noise_std < 0:
            raise ValueError(f"noise_std is {self.noise_std}; must be 0 or more")

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> HarmonicTasks:
        frequency = self.ood_frequency if _is_ood(split, self.name) else self.frequency
        return HarmonicTasks(
            amplitude=_normal((num_tasks, 2), generator),
            phase=_uniform((0, 2 * math.pi), (num_tasks, 2), generator),
            frequency=_uniform(frequency, (num_tasks,), generator),
            center=_uniform(self.center, (num_tasks,), generator),
        )

    def examples(self, tasks: HarmonicTasks, num_examples: int, generator: torch.Generator) -> Examples:
        x = tasks.center[:, None] + _normal((len(tasks), num_examples), generator)  # [N, K]
        multiple = torch.tensor([1.0, 2.0], device=x.device)
        angle = (tasks.frequency[:, None] * x)[..., None] * multiple + tasks.phase[:, None]  # [N, K, 2]
        y = (tasks.amplitude[:, None] * angle.sin()).sum(-1) + self.noise_std * _normal(tuple(x.shape), generator)
        return Examples(x[..., None], y[..., None])


def _is_ood(split: Split, family: str) -> bool:
    if split not in ("train", "test", "ood"):
        raise ValueError(f"split is {split!r}; {family} has train, test and ood")
    return split == "ood"


def _uniform(limits: Range, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    low, high = limits
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)
