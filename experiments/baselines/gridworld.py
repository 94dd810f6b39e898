"""GridNavi baselines, all exact: the Bayes-optimal search, the known goal, the random policy.

Expectations over the training distribution, each goal once; the Bayes-optimal value is that of
`envs.torch_families.grid_search`.
"""

from __future__ import annotations

import torch

from envs.torch_families.gridworld import GridNavi, GridTasks
from experiments.baselines import BaselineResult


def grid_baselines(family: GridNavi, num_trials: int, generator: torch.Generator) -> list[BaselineResult]:
    """The exact values, without sampling; `num_trials` and `generator` have no effect."""
    cells = GridTasks(torch.arange(family.size**2))
    bounds = family.bounds(cells[family.in_training_range(cells)], family.num_episodes)
    by_episode = {name: tuple(returns.mean(1).tolist()) for name, returns in bounds.items()}
    return [
        BaselineResult(name, sum(means), 0.0, None, f"exact; by episode {', '.join(f'{r:.3f}' for r in means)}", means)
        for name, means in by_episode.items()
    ]
