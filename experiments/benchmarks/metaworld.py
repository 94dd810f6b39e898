"""Success of Meta-World's own scripted policies in each of its 50 environments, counted as for any agent; and speed.

Every row's episode counts, over all its 500 steps. A policy that fails here fails in the package too: no agent need be
better than what the package's authors wrote by hand, and an environment in which that fails is hard to judge.
"""

from __future__ import annotations

import json as json_format
import time
from dataclasses import asdict, dataclass

import torch

from envs.external.metaworld.family import Metaworld
from experiments.benchmarks.harness import machine
from metarl.checks import at_least


@dataclass(frozen=True)
class Settings:
    """The size of the benchmark."""

    benchmark: str = "MT50"  # a multi-task benchmark of the package: scripted policies see the goal
    num_goals: int = 10  # number of goals of each environment, at most 50
    horizon: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(self, 1, "num_goals", at_most=50)


@dataclass(frozen=True)
class Counted:
    """What was counted in one environment."""

    success: float  # fraction of the episodes in which any step succeeded
    steps_to_success: float  # mean over the episodes that succeeded; NaN: none
    last_step_success: float  # fraction of the episodes whose last step succeeded
    mean_return: float


def run(settings: Settings | None = None) -> tuple[dict[str, Counted], float]:
    """What was counted by environment, and steps per second."""
    settings = Settings() if settings is None else settings
    family = Metaworld(settings.benchmark, horizon=settings.horizon)
    generator = torch.Generator().manual_seed(settings.seed)
    num_envs = len(family.tasks.train)
    tasks = family.sample(num_envs * settings.num_goals, "train", generator)  # num_envs after num_envs, one of each
    env = family.make_env(num_envs, generator)
    found: dict[str, list[torch.Tensor]] = {}
    seconds = 0.0
    for index in range(settings.num_goals):
        own = tasks[index * num_envs : (index + 1) * num_envs]
        step, total = env.reset(own), torch.zeros(num_envs)
        started = time.perf_counter()
        for _ in range(settings.horizon):
            step = env.step(env.scripted_action())
            total += step.reward
        seconds += time.perf_counter() - started
        assert step.metrics is not None
        for name, row in zip(family.groups(own), torch.cat([step.metrics, total[:, None]], 1), strict=True):
            found.setdefault(name, []).append(row)
    env.close()
    counted = {name: Counted(*torch.stack(found[name]).nanmean(0).tolist()) for name in sorted(found)}
    return counted, len(tasks) * settings.horizon / seconds


def main(json: bool = False) -> None:
    settings = Settings()
    counted, speed = run(settings)
    everywhere = sum(one.success for one in counted.values()) / len(counted)
    if json:
        by_env = {name: asdict(one) for name, one in counted.items()}
        facts = {"benchmark": "metaworld", "machine": machine(), "settings": asdict(settings)}
        print(json_format.dumps({**facts, "success": everywhere, "steps_per_second": speed, "environments": by_env}))
        return
    from rich.console import Console

    from experiments.cli.tables import print_table

    columns = ("environment", "success", "steps to success", "success at the last step", "return")
    rows = [
        (
            name,
            f"{one.success:.2f}",
            f"{one.steps_to_success:.0f}",
            f"{one.last_step_success:.2f}",
            f"{one.mean_return:,.0f}",
        )
        for name, one in counted.items()
    ]
    title = f"scripted policies, {settings.num_goals} goals of each environment, reward v2"
    print_table(title, columns, rows, Console(), text=("environment",))
    print(f"success in all: {everywhere:.3f}; {speed:,.0f} steps/s")
