"""ALP-GMM: training tasks where scores change most, for better or worse.

Portelas, Colas, Hofmann, Oudeyer. Teacher algorithms for curriculum learning of deep RL in continuously parameterized
environments (2019).

A task's absolute learning progress (ALP) is the difference between its score and that of the nearest earlier task. From
time to time, a mixture of Gaussians is fitted to the latest tasks with their ALP, and tasks are drawn from its
components in proportion to their mean ALP.

Deviations: 1. tasks are quantiles of their numbers, so no range needs to be given. 2. only the latest scores are
remembered. 3. the ALP is divided by the range of scores, which the paper does by hand for each environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from metarl.checks import at_least, in_range
from metarl.task_samplers.coordinates import Coordinates
from metarl.task_samplers.mixture import Mixture, fit
from metarl.task_samplers.sampler import DrawTasks

_FEWEST_COMPONENTS = 2


@dataclass(frozen=True)
class ALPGMMConfig:
    """ALP-GMM: tasks where scores change most, by a mixture of Gaussians."""

    own_share: float = 0.2  # fraction of the tasks that come from the family's own distribution
    fit_every: int = 250  # number of scored tasks between two fits, which are to the same number of latest tasks
    most_components: int = 10  # largest number of Gaussians; the criterion of Akaike chooses from 2 on
    memory: int = 2000  # number of latest tasks among which the nearest one is looked for

    chooses: ClassVar[str] = "parameters"

    def __post_init__(self) -> None:
        in_range(self, 0, 1, "own_share")
        at_least(self, _FEWEST_COMPONENTS, "most_components")
        at_least(self, 2 * self.most_components, "fit_every")
        at_least(self, self.fit_every, "memory")

    def make(self, draw: DrawTasks, device: torch.device) -> ALPGMMSampler:
        return ALPGMMSampler(self, draw, device)


class ALPGMMSampler:
    """The latest tasks with their scores and progress, and the mixture."""

    learns = True

    def __init__(self, config: ALPGMMConfig, draw: DrawTasks, device: torch.device) -> None:
        self.config = config
        self._draw = draw
        self.coordinates = Coordinates(draw, device)
        self._scores = torch.zeros(config.memory, dtype=torch.float64, device=device)  # a ring
        self._points = self._scores.new_zeros(config.memory, len(self.coordinates.names))
        self._progress = torch.zeros_like(self._scores)
        self._num_scored = 0
        self._num_at_fit = 0  # tasks that were scored before the last fit
        self.mixture: Mixture | None = None  # of [D + 1]: a point and its progress; None before the first fit

    def propose(self, count: int, generator: torch.Generator) -> Any:
        if self.mixture is None:
            return self._draw(count, generator)
        device, dtype = self._points.device, self._points.dtype
        progress = self.mixture.mean[:, -1].clamp(min=1e-9)
        component = progress.multinomial(count, replacement=True, generator=generator)
        size = self._points.shape[1]
        noise = torch.randn(count, size, 1, generator=generator, device=device, dtype=dtype)
        spread = torch.linalg.cholesky(self.mixture.covariance[:, :size, :size])[component] @ noise
        points = (self.mixture.mean[component, :size] + spread[..., 0]).clamp(0, 1)
        uniform = torch.rand(count, size, generator=generator, device=device, dtype=dtype)
        own = torch.rand(count, 1, generator=generator, device=device) < self.config.own_share
        return self.coordinates.near(torch.where(own, uniform, points), generator)

    def report(self, tasks: Any, scores: Tensor) -> dict[str, float]:
        for point, score in zip(self.coordinates.of(tasks), scores.to(self._scores), strict=True):
            place, known = self._num_scored % self.config.memory, min(self._num_scored, self.config.memory)
            nearest = (self._points[:known] - point).square().sum(1).argmin() if known else None
            self._progress[place] = 0.0 if nearest is None else (score - self._scores[nearest]).abs()
            self._points[place], self._scores[place] = point, score
            self._num_scored += 1
        if self._num_scored - self._num_at_fit >= self.config.fit_every:
            self._fit()
        components = 0 if self.mixture is None else len(self.mixture.weight)
        return self.coordinates.drawn(tasks) | {"sampler/components": float(components)}

    def _fit(self) -> None:
        latest = torch.arange(self._num_scored - self.config.fit_every, self._num_scored, device=self._points.device)
        latest = latest % self.config.memory
        known = self._scores[: min(self._num_scored, self.config.memory)]
        progress = self._progress[latest] / (known.max() - known.min()).clamp(min=1e-9)
        data = torch.cat([self._points[latest], progress[:, None]], 1)
        generator = torch.Generator(data.device).manual_seed(self._num_scored)
        numbers = range(_FEWEST_COMPONENTS, self.config.most_components + 1)
        self.mixture = min((fit(data, number, generator) for number in numbers), key=lambda each: each.akaike(data))
        self._num_at_fit = self._num_scored

    def state_dict(self) -> dict[str, Any]:
        return {
            "points": self._points,
            "scores": self._scores,
            "progress": self._progress,
            "counts": {"scored": self._num_scored, "at_fit": self._num_at_fit},
            "mixture": None if self.mixture is None else list(self.mixture),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for own, name in ((self._points, "points"), (self._scores, "scores"), (self._progress, "progress")):
            own.copy_(state[name])
        self._num_scored, self._num_at_fit = state["counts"]["scored"], state["counts"]["at_fit"]
        saved = state["mixture"]
        self.mixture = None if saved is None else Mixture(*(part.to(self._points) for part in saved))
