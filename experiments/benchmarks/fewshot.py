"""Few-shot image learners: tasks per second in meta-training and in adaptation, batched and one by one.

Every Omniglot recipe, on random images of its size: 5 ways, 1 shot (or the recipe's training shots), 5 queries per
class. "Batched" is an update on eight tasks; "looped" is eight updates on one task each, with gradients computed task
by task if the learner takes any. Float32 or the recipe's precision, one thread, rounds interleaved; times are medians
over rounds, and ratios are medians of the rounds' ratios. Adaptation is from a support set to predictions for the
queries, as timed by `metarl evaluate`.
"""

from __future__ import annotations

import json as json_format
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from experiments.experiment.definition import load
from experiments.experiment.names import experiment_names
from metarl.fewshot.episode import FewShotEpisode, FewShotLearner
from metarl.fewshot.problem import Classification
from metarl.records import Examples

FAMILY = "omniglot"
IMAGE_SHAPE = (1, 28, 28)


@dataclass(frozen=True)
class Settings:
    """The size of a benchmark."""

    num_tasks: int = 8
    ways: int = 5
    queries: int = 5  # queries per class
    num_rounds: int = 5
    recipes: tuple[str, ...] = ()  # names of the recipes; (): all of the family's

    def __post_init__(self) -> None:
        for name in ("num_tasks", "queries", "num_rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; must be at least 1")


def run(settings: Settings | None = None) -> dict[str, Any]:
    """Measure all learners: tasks per second batched, looped and adapting, and the speed-up of batching."""
    settings = Settings() if settings is None else settings
    names = settings.recipes or tuple(
        name.partition("/")[2] for name in experiment_names() if name.startswith(f"{FAMILY}/")
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        contenders = {name: _contenders(name, settings) for name in names}
        seconds: dict[str, dict[str, list[float]]] = {name: {} for name in names}
        for number in range(settings.num_rounds + 1):  # the first round is a warm-up
            for name, ways in contenders.items():
                for way, contender in ways.items():
                    started = time.perf_counter()
                    contender()
                    if number:
                        seconds[name].setdefault(way, []).append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return {
        "benchmark": "fewshot",
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "num_tasks": settings.num_tasks,
        "tasks_per_second": {
            name: {way: settings.num_tasks / statistics.median(values) for way, values in ways.items()}
            for name, ways in seconds.items()
        },
        "ratios": {
            name: statistics.median(
                looped / batched for looped, batched in zip(ways["looped"], ways["batched"], strict=True)
            )
            for name, ways in seconds.items()
        },
    }


def _contenders(name: str, settings: Settings) -> dict[str, Callable[[], Any]]:
    """The timed functions of a learner."""
    experiment = load(f"{FAMILY}/{name}")
    episode = _random_episode(settings, experiment.family.training.shots)
    batched, looped = _learner(experiment.agent, settings), _learner(_by_task(experiment.agent), settings)
    tasks = [episode.map(lambda value: value[index : index + 1]) for index in range(settings.num_tasks)]  # noqa: B023

    def loop() -> None:
        for task in tasks:
            looped.update(task, generator)

    generator = torch.Generator().manual_seed(0)
    num_points = 1 if batched.point == "shot" else _num_steps(experiment.agent)
    return {
        "batched": lambda: batched.update(episode, generator),
        "looped": loop,
        "adapting": lambda: batched.predictions(episode, num_points),
    }


def _learner(config: Any, settings: Settings) -> FewShotLearner:
    problem = Classification(IMAGE_SHAPE, settings.ways)
    return config.make_learner(problem, num_iterations=10**6, generator=torch.Generator().manual_seed(0))


def _by_task(config: Any) -> Any:
    """The configuration with gradients computed task by task, if it takes any."""
    return replace(config, batching="loop") if _has(config, "batching") else config


def _num_steps(config: Any) -> int:
    return config.num_inner_steps if _has(config, "num_inner_steps") else 1


def _has(config: Any, name: str) -> bool:
    return name in {field.name for field in fields(config)}


def _random_episode(settings: Settings, shots: int) -> FewShotEpisode:
    generator = torch.Generator().manual_seed(0)

    def examples(number: int) -> Examples:
        x = torch.rand(settings.num_tasks, number * settings.ways, *IMAGE_SHAPE, generator=generator)
        return Examples(x, torch.arange(settings.ways).repeat(settings.num_tasks, number))

    return FewShotEpisode(examples(shots), examples(settings.queries))


def main(json: bool = False) -> None:
    """Print tasks per second and the ratios; json: print one JSON object."""
    result = run()
    if json:
        print(json_format.dumps(result))
        return
    print(f"{'tasks per second':<24}{'batched':>10}{'looped':>10}{'ratio':>8}{'adapting':>10}")
    for name, rates in result["tasks_per_second"].items():
        numbers = (
            f"{rates['batched']:10.1f}{rates['looped']:10.1f}{result['ratios'][name]:8.2f}{rates['adapting']:10.1f}"
        )
        print(f"{name:<24}{numbers}")
