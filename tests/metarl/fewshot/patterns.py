"""A family of images for probes: faint patterns under shadows that say nothing. Comparing pixels fails; learning helps.

Each class is a pattern of signs, faint and the same in all its images; over it lies a slope of light, strong and drawn
anew for each image. Patterns are fresh in every task, so that nothing can be learned by heart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import nn

from metarl.fewshot.episode import FewShotEpisode
from metarl.fewshot.problem import Classification
from metarl.protocols import Split
from metarl.records import Examples


@dataclass(frozen=True)
class Patterns:
    ways: int = 3
    shots: int = 1
    queries: int = 5
    size: int = 8
    faintness: float = 0.6
    shadow: float = 1.5
    train_ways: int | None = None

    name = "patterns"
    test_queries = 5
    varies = False

    @property
    def training(self) -> Self:
        return replace(self, ways=self.train_ways or self.ways, train_ways=None)

    @property
    def problem(self) -> Classification:
        return Classification((1, self.size, self.size), self.ways)

    def episode(
        self,
        num_tasks: int,
        split: Split,
        *,
        shots: int | None = None,
        queries: int | None = None,
        generator: torch.Generator,
    ) -> FewShotEpisode:
        if split not in ("train", "test", "ood"):
            raise ValueError(f"split is {split!r}; patterns has train, test and ood")
        signs = torch.randint(2, (num_tasks, self.ways, self.size, self.size), generator=generator) * 2.0 - 1
        support = self._examples(signs, self.shots if shots is None else shots, generator)
        return FewShotEpisode(support, self._examples(signs, self.queries if queries is None else queries, generator))

    def _examples(self, signs: torch.Tensor, shots: int, generator: torch.Generator) -> Examples:
        num_tasks, ways, size = signs.shape[:3]
        order = torch.rand(num_tasks, shots, ways, generator=generator).argsort(-1).flatten(1)  # a class at a time
        patterns = signs.gather(1, order[..., None, None].expand(-1, -1, size, size))
        at = torch.linspace(-1, 1, size)
        tilt = torch.randn(num_tasks, shots * ways, 3, 1, 1, generator=generator)
        light = tilt[:, :, 0] + tilt[:, :, 1] * at[:, None] + tilt[:, :, 2] * at
        return Examples((self.faintness * patterns + self.shadow * light).unsqueeze(2), order)


def identity(size: int) -> Any:
    """A net that embeds vectors [..., size] as themselves."""
    net: Any = nn.Identity()
    net.output_size = size
    return net
