"""Results of known methods on a task family, for comparison with an agent's.

`baselines(family)` runs them; each result is the total reward of one trial. Heavy imports are delayed until then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from metarl.torch_settings import torch_threads

if TYPE_CHECKING:
    from torch import Tensor

COLUMNS = ("method", "trial return", "s.e.", "published", "source")


@dataclass(frozen=True)
class BaselineResult:
    """The total reward of one trial, all its episodes together, under one method."""

    name: str
    mean: float
    standard_error: float | None  # of the mean; 0 for exact values, None where the spread over tasks is not known
    published: float | None = None  # for exactly these settings
    source: str = ""  # settings found by search, how an exact value was computed, where the published number is from
    episodes: tuple[float, ...] = ()  # the mean return of each episode of the trial

    @classmethod
    def of(cls, name: str, returns: Tensor, published: float | None = None, source: str = "") -> BaselineResult:
        """The result that returns by episode and task [K, N] make; the standard error is over the N tasks."""
        total = returns.double().sum(0)
        error = float(total.std() / len(total) ** 0.5)
        return cls(name, float(total.mean()), error, published, source, tuple(returns.double().mean(1).tolist()))


def baselines(family: Any, num_trials: int = 1000, seed: int = 0, ppo_steps: int = 0) -> list[BaselineResult]:
    """Run every baseline known for a task family on `num_trials` fresh test tasks, best first.

    All methods run on the same tasks, so their differences are more precise than the standard errors suggest.

    ppo_steps: steps to train PPO without meta-learning, for families without exact methods; 0: leave it out.

    Raises:
        ValueError: when `num_trials` is below 2, which gives no standard error, or `ppo_steps` below 0.
    """
    if ppo_steps < 0:
        raise ValueError(f"ppo_steps is {ppo_steps}; must be at least 0")
    if num_trials < 2:
        raise ValueError(f"num_trials is {num_trials}; must be at least 2")
    import torch

    from envs.torch_families.bandits import BernoulliBandit, GaussianBandit
    from envs.torch_families.gridworld import GridNavi
    from envs.torch_families.tabular import TabularMDP

    run: Any
    if isinstance(family, BernoulliBandit | GaussianBandit):
        from experiments.baselines.bandits import bandit_baselines as run
    elif isinstance(family, TabularMDP):
        from experiments.baselines.tabular import tabular_baselines as run
    elif isinstance(family, GridNavi):
        from experiments.baselines.gridworld import grid_baselines as run
    else:
        from experiments.baselines.simulation import simulated_baselines

        run = partial(simulated_baselines, ppo_steps=ppo_steps)
    with torch_threads(1):  # thousands of steps on small tensors: more threads are slower
        results = run(family, num_trials, torch.Generator().manual_seed(seed))
    return sorted(results, key=lambda result: -result.mean)


def rows(results: Iterable[BaselineResult]) -> list[tuple[str, ...]]:
    """The results as text, one row of `COLUMNS` each, for a table."""

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    return [
        (result.name, number(result.mean), number(result.standard_error), number(result.published), result.source)
        for result in results
    ]
