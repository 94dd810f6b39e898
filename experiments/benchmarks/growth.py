"""The cost of updates as work grows: items per second, and memory, at one, four and sixteen times the size.

A cost that is linear in what grows handles as many items per second at any size; attention over a trial is not linear
and is measured to show it. Each size has a fresh process with one thread. Memory is what an update adds to the peak of
the process after all is prepared for it: zero where the preparation took as much.
"""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from experiments.benchmarks.harness import Result, interleave, report, timed
from experiments.benchmarks.update_peers.contest import Work
from metarl.checks import at_least

FACTORS = (1, 4, 16)
LEAST = 0.8  # items per second at the largest size over those at the middle one, where cost should be linear


@dataclass(frozen=True)
class Settings:
    """The size of a benchmark."""

    cases: tuple[str, ...] = ()  # names of what grows; (): all
    factors: tuple[int, ...] = FACTORS  # sizes, as multiples of the smallest
    num_rounds: int = 3

    def __post_init__(self) -> None:
        at_least(self, 1, "num_rounds")
        for name in self.cases:
            if name not in CASES:
                raise ValueError(f"cases has {name!r}; must be among {', '.join(CASES)}")
        if len(self.factors) < 2 or min(self.factors) < 1:
            raise ValueError(f"factors is {self.factors}; must be two or more numbers of at least 1")


@dataclass(frozen=True)
class Case:
    """A kind of update and one quantity that grows."""

    make: Callable[[int], Work]  # the update at a size
    smallest: int
    item: str  # what is counted, in the plural
    is_linear: bool = True


def run(settings: Settings | None = None) -> Result:
    """Measure all cases at all sizes."""
    settings = Settings() if settings is None else settings
    names = settings.cases or tuple(CASES)
    speeds: dict[str, list[float]] = {}
    units: dict[str, str] = {}
    memory: dict[str, float] = {}
    for name in names:
        case = CASES[name]
        for factor in settings.factors:
            at = f"{name} {case.smallest * factor}"
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                seconds, memory[at] = pool.submit(_measure, name, factor, settings.num_rounds).result()
            speeds[at] = [case.smallest * factor / second for second in seconds]
            units[at] = f"{case.item}/s"
    kept: dict[str, float] = {}
    asked: dict[str, float] = {}
    for name in names:
        middle, largest = (f"{name} {CASES[name].smallest * factor}" for factor in sorted(settings.factors)[-2:])
        kept[f"{largest} / {middle}"] = statistics.median(speeds[largest]) / statistics.median(speeds[middle])
        if CASES[name].is_linear:
            asked[f"{largest} / {middle}"] = LEAST
    megabytes = {f"memory, {at}": f"{value:.0f} MB" for at, value in memory.items()}
    return Result("growth", settings, units, speeds, kept, asked=asked, details=megabytes)


def _measure(name: str, factor: int, num_rounds: int) -> tuple[list[float], float]:
    """Seconds of each round, and megabytes that the first update adds to the process."""
    torch.set_num_threads(1)
    case = CASES[name]
    work = case.make(case.smallest * factor)
    before = _peak()
    work()
    added = _peak() - before
    return interleave({name: timed(work)}, num_rounds)[name], added


def _peak() -> float:
    """The largest memory of this process so far, in megabytes; zero where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- the cases, imported where they are measured ----------------------------------------------------------------------


def _rl2(num_tasks: int, num_episodes: int, **settings: Any) -> Work:
    from dataclasses import replace

    from experiments.recipes.grid_navi.rl2 import experiment
    from metarl.rl.rollouts import collect

    family = experiment.family
    config = replace(experiment.agent, num_epochs=1, target_kl=None, **settings)
    generator = torch.Generator().manual_seed(0)
    agent = config.make(family.observation_space, family.action_space, num_iterations=1000, generator=generator)
    env, tasks = family.make_env(num_tasks, generator), family.sample(num_tasks, "train", generator)
    trajectory = collect(env, agent, tasks, num_episodes, generator=generator)
    return lambda: list(agent.update([trajectory], generator).values())


def _rl2_transformer(num_episodes: int) -> Work:
    from metarl.adaptation.transformer import TransformerConfig

    memory = TransformerConfig(max_items=15 * num_episodes + 1)
    return _rl2(16, num_episodes, memory=memory, hidden_size=64)


def _sinusoid_maml(num_tasks: int, num_steps: int) -> Work:
    from metarl.fewshot.methods.maml import MAMLConfig
    from metarl.fewshot.problem import Regression
    from metarl.fewshot.regression import Sinusoid

    generator = torch.Generator().manual_seed(0)
    config = MAMLConfig(num_inner_steps=num_steps)
    learner = config.make_learner(Regression(1, 1), num_iterations=1000, generator=generator)
    episode = Sinusoid().episode(num_tasks, "train", generator=generator)
    return lambda: list(learner.update(episode, generator).values())


def _images(config: Any, num_tasks: int, size: int = 28) -> Work:
    from metarl.fewshot.episode import FewShotEpisode
    from metarl.fewshot.problem import Classification
    from metarl.records import Examples

    generator = torch.Generator().manual_seed(0)
    learner = config.make_learner(Classification((1, size, size), 5), num_iterations=1000, generator=generator)

    def examples(number: int) -> Examples:
        x = torch.rand(num_tasks, 5 * number, 1, size, size, generator=generator)
        return Examples(x, torch.arange(5).repeat(num_tasks, number))

    episode = FewShotEpisode(examples(1), examples(5))
    return lambda: list(learner.update(episode, generator).values())


def _image_maml(num_tasks: int) -> Work:
    from metarl.fewshot.methods.maml import MAMLConfig

    return _images(MAMLConfig(batching="chunks"), num_tasks)


def _prototypical(num_tasks: int, size: int = 28) -> Work:
    from metarl.fewshot.methods.prototypical import PrototypicalConfig

    return _images(PrototypicalConfig(), num_tasks, size)


def _promp(num_tasks: int) -> Work:
    from experiments.benchmarks.outer_step import OuterStepSize, ours, problem

    return ours(*problem(OuterStepSize(num_tasks=num_tasks)), "batched")


def _pearl(context: int) -> Work:
    from agents.pearl import PEARLConfig
    from envs.locomotion.half_cheetah import HalfCheetahVel
    from experiments.benchmarks.pearl import same_agent, step
    from experiments.benchmarks.pearl_reference import Reference

    config, family = PEARLConfig(context=context, capacity=2_000), HalfCheetahVel()
    sizes = family.observation_space.shape[0], family.action_space.shape[0]
    agent, replay = same_agent(config, family, Reference(config, *sizes, config.capacity, seed=0))
    generator = torch.Generator().manual_seed(0)

    def work() -> list[float]:
        step(agent, replay, generator)
        return []

    return work


CASES: Mapping[str, Case] = {
    "rl2_tasks": Case(lambda size: _rl2(size, 4), 64, "trials"),
    "rl2_episodes": Case(lambda size: _rl2(16, size), 4, "episodes of a trial"),
    "rl2_transformer_episodes": Case(_rl2_transformer, 4, "episodes of a trial", is_linear=False),
    "sinusoid_maml_tasks": Case(lambda size: _sinusoid_maml(size, 1), 25, "tasks"),
    "sinusoid_maml_steps": Case(lambda size: _sinusoid_maml(25, size), 2, "inner steps"),
    "image_maml_tasks": Case(_image_maml, 4, "tasks"),
    "prototypical_tasks": Case(_prototypical, 4, "tasks"),
    "prototypical_pixels": Case(lambda size: _prototypical(4, round(size**0.5)), 28**2, "pixels of an image"),
    "promp_tasks": Case(_promp, 5, "tasks"),
    "pearl_context": Case(_pearl, 64, "transitions of a context"),
}


def main(json: bool = False) -> None:
    """Print speeds, their ratios and memory; one JSON object where that is asked for."""
    report(run(), json)
