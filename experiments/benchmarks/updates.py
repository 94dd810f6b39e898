"""Whole updates beside plain torch, torch.compile and JAX, with one thread and with two.

RL2's PPO update at the sizes of grid_navi and half_cheetah_dir; the meta-gradient of MAML on sinusoids (one and five
steps) and on images, and the gradient of a prototypical network; ProMP's outer step; PEARL's gradient step. Peers start
from the same weights and data in float32, and their outcomes are compared with ours before anything is timed; what is
compiled is compiled before. JAX is measured where it is installed (the extra `peers`), torch.compile where there is a
C++ compiler. Each number of threads has a process of its own, since JAX fixes its number when it starts.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from experiments.benchmarks.harness import Result, Rounds, interleave, ratios, report, timed
from experiments.benchmarks.update_peers.contest import Work, has_compiler, has_jax
from metarl.checks import at_least

LEFT_OUT = {
    "jax": "JAX is not installed: pip install 'metarl[peers]'",
    "compiled": "torch.compile needs a C++ compiler, and there is none",
}
TARGETS = {  # the least ratio of JAX's time to ours, with one thread
    "rl2_grid_navi": 1.0,
    "rl2_half_cheetah": 1.0,
    "sinusoid_maml_1": 1 / 1.5,
    "sinusoid_maml_5": 1 / 1.5,
    "promp_outer": 1.0,
    "pearl_step": 1.0,
}


@dataclass(frozen=True)
class Settings:
    """The size of a benchmark."""

    cases: tuple[str, ...] = ()  # names of the updates; (): all
    threads: tuple[int, ...] = (1, 2)  # numbers of threads
    num_rounds: int = 5
    small: bool = False  # whether sizes are tiny, which shows that all agree but not how fast they are

    def __post_init__(self) -> None:
        at_least(self, 1, "num_rounds")
        for name in self.cases:
            if name not in CASES:
                raise ValueError(f"cases has {name!r}; must be among {', '.join(CASES)}")
        if not self.threads or min(self.threads) < 1:
            raise ValueError(f"threads is {self.threads}; must be numbers of at least 1")


def run(settings: Settings | None = None) -> Result:
    """Measure all updates: seconds per update, and how many times ours the others' time is."""
    settings = Settings() if settings is None else settings
    rounds: Rounds = {}
    for threads in settings.threads:
        with _jax_threads(threads), _fresh_process() as pool:
            rounds |= pool.submit(_measure, settings, threads).result()
    names = [f"{name} / {_ours(name)}" for name in rounds if name != _ours(name)]
    asked = {f"{_named(case, 'jax', 1)} / {_named(case, 'ours', 1)}": least for case, least in TARGETS.items()}
    cannot = [
        f"{case}: torch.compile cannot compile this update"
        for case in settings.cases or CASES
        if has_compiler() and _named(case, "compiled", settings.threads[0]) not in rounds
    ]
    missing = [name for name, found in (("jax", has_jax()), ("compiled", has_compiler())) if not found]
    return Result(
        "updates",
        settings,
        dict.fromkeys(rounds, "s/update"),
        rounds,
        ratios(rounds, names),
        asked={} if settings.small else asked,
        left_out=(*(LEFT_OUT[name] for name in missing), *cannot),
    )


def _measure(settings: Settings, threads: int) -> Rounds:
    """All cases in this process, one after the other; the contenders of a case are interleaved."""
    torch.set_num_threads(threads)
    rounds: Rounds = {}
    for case in settings.cases or tuple(CASES):
        found = CASES[case](settings.small)
        measured = {_named(case, name, threads): timed(work, _REPEATS.get(case, 1)) for name, work in found.items()}
        rounds |= interleave(measured, settings.num_rounds)
    return rounds


def _named(case: str, contender: str, threads: int) -> str:
    return f"{case} {contender}, {threads} thread{'s' if threads > 1 else ''}"


def _ours(name: str) -> str:
    """Our contender in the case and with the threads of another."""
    (case, _), threads = name.split(", ")[0].split(" "), name.split(", ")[1]
    return f"{case} ours, {threads}"


@contextmanager
def _fresh_process() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@contextmanager
def _jax_threads(threads: int) -> Iterator[None]:
    """The environment in which JAX, in a process started now, computes on the processor with so many threads."""
    eigen = "true" if threads > 1 else "false"
    flags = f"--xla_cpu_multi_thread_eigen={eigen} intra_op_parallelism_threads={threads}"
    before = {name: os.environ.get(name) for name in ("XLA_FLAGS", "JAX_PLATFORMS")}
    os.environ.update(XLA_FLAGS=flags, JAX_PLATFORMS="cpu")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# --- the cases, imported where they are measured ----------------------------------------------------------------------


def _rl2_grid_navi(small: bool) -> Mapping[str, Work]:
    from experiments.benchmarks.update_peers import rl2
    from experiments.recipes.grid_navi.rl2 import experiment

    agent = replace(experiment.agent, num_epochs=1) if small else experiment.agent
    return rl2.contenders(experiment.family, agent, 16 if small else 256, 1 if small else 4)


def _rl2_half_cheetah(small: bool) -> Mapping[str, Work]:
    from experiments.benchmarks.update_peers import rl2
    from experiments.recipes.half_cheetah_dir.rl2 import experiment

    agent = replace(experiment.agent, num_epochs=1, num_minibatches=2) if small else experiment.agent
    return rl2.contenders(experiment.family, agent, 4 if small else 128, 1 if small else 2)


def _sinusoid_maml(num_steps: int) -> Callable[[bool], Mapping[str, Work]]:
    def make(small: bool) -> Mapping[str, Work]:
        from experiments.benchmarks.update_peers import supervised

        return supervised.sinusoid(num_steps, 3 if small else 25)

    return make


def _promp_outer(small: bool) -> Mapping[str, Work]:
    from experiments.benchmarks.outer_step import OuterStepSize
    from experiments.benchmarks.update_peers import promp

    return promp.contenders(OuterStepSize(2, 2, 10) if small else OuterStepSize())


def _pearl_step(small: bool) -> Mapping[str, Work]:
    from agents.pearl import PEARLConfig
    from experiments.benchmarks.update_peers import pearl

    sizes = {"batch": 8, "context": 8, "hidden_sizes": (16,), "encoder_sizes": (16,), "num_train_tasks": 20}
    return pearl.contenders(PEARLConfig(capacity=2000, **(sizes if small else {})))


def _image_maml(small: bool) -> Mapping[str, Work]:
    from experiments.benchmarks.update_peers import supervised

    return supervised.image_maml(2 if small else 8)


def _prototypical(small: bool) -> Mapping[str, Work]:
    from experiments.benchmarks.update_peers import supervised

    return supervised.prototypical(2 if small else 8)


CASES: Mapping[str, Callable[[bool], Mapping[str, Work]]] = {
    "rl2_grid_navi": _rl2_grid_navi,
    "rl2_half_cheetah": _rl2_half_cheetah,
    "sinusoid_maml_1": _sinusoid_maml(1),
    "sinusoid_maml_5": _sinusoid_maml(5),
    "promp_outer": _promp_outer,
    "pearl_step": _pearl_step,
    "image_maml": _image_maml,
    "prototypical": _prototypical,
}
_REPEATS = {"sinusoid_maml_1": 20, "sinusoid_maml_5": 10, "pearl_step": 3, "image_maml": 2, "prototypical": 2}


def main(json: bool = False) -> None:
    """Print the times and their ratios; one JSON object where that is asked for."""
    report(run(), json)
