"""Few-shot learners of images: tasks per second in meta-training and in adaptation, all at once and one by one.

Every recipe of Omniglot, on random images of its size: 5 ways, 1 shot (or what the recipe trains with), 5 queries of
each class. "Batched" is an update on eight tasks; "looped" the same eight in turn, an update on each, with gradients
task by task where the learner takes any. Float32 or what the recipe says, one thread, compared as in
experiments/benchmarks/harness.py. Adaptation is from a support set to predictions for the
queries, as `metarl evaluate` times it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from experiments.benchmarks.harness import Result, interleave, ratios, report, timed
from experiments.experiment.definition import load
from experiments.experiment.names import experiment_names
from metarl.fewshot.episode import FewShotEpisode, FewShotLearner
from metarl.fewshot.problem import Classification
from metarl.records import Examples
from metarl.torch_settings import torch_threads

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


def run(settings: Settings | None = None) -> Result:
    """Measure all learners: tasks per second in the three ways, and how much faster batched is than looped."""
    settings = Settings() if settings is None else settings
    names = settings.recipes or tuple(
        name.partition("/")[2] for name in experiment_names() if name.startswith(f"{FAMILY}/")
    )
    with torch_threads(1):
        contenders = {
            f"{name} {way}": _rate(work, settings.num_tasks)
            for name in names
            for way, work in _contenders(name, settings).items()
        }
        rounds = interleave(contenders, settings.num_rounds, warm_up=True)
    compared = ratios(rounds, [f"{name} batched / {name} looped" for name in names])
    return Result("fewshot", settings, dict.fromkeys(rounds, "tasks/s"), rounds, compared)


def _rate(work: Callable[[], Any], num_tasks: int) -> Callable[[], float]:
    seconds = timed(work)
    return lambda: num_tasks / seconds()


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
    """Print tasks per second and the ratios; one JSON object where that is asked for."""
    report(run(), json)
