"""Meta-gradients: one update of sinusoid MAML and of ProMP, compared with a loop over tasks and other libraries.

Sinusoid: 25 tasks of 10 shots and 10 queries, the 40-40 relu net, 1 and 5 inner steps. ProMP: see outer_step.py.
Float32, one thread; the optimiser's step, equal for all, is left out. All contenders' meta-gradients are checked to
agree before any is timed. Rounds are interleaved; times are medians over rounds, and a ratio is the median of the
rounds' ratios. `higher` and `torchopt` are measured if they are installed. Also measured: the fraction of an iteration
of MAML-TRPO spent on simulation.
"""

from __future__ import annotations

import importlib
import importlib.util
import json as json_format
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from experiments.benchmarks import outer_step
from experiments.benchmarks.outer_step import Contender, OuterStepSize
from metarl.adaptation.batching import BATCHINGS
from metarl.adaptation.gradient import GradientAdaptation, supervised_loss
from metarl.adaptation.step_sizes import FixedStepSizes
from metarl.fewshot.episode import FewShotEpisode
from metarl.fewshot.problem import squared_errors
from metarl.fewshot.regression import Sinusoid
from metarl.nets.mlp import mlp

INNER_LR = 0.01
TARGETS = {  # smallest speed-up over the loop
    "loop_1 / batched_1": 8.0,
    "loop_5 / batched_5": 8.0,
    "outer_loop / outer_batched": 1.0,
}


@dataclass(frozen=True)
class Settings:
    """The size of a benchmark."""

    num_tasks: int = 25
    num_inner_steps: tuple[int, ...] = (1, 5)
    num_rounds: int = 15
    num_repeats: int = 4  # number of repeats of each contender per round
    outer: OuterStepSize = field(default_factory=OuterStepSize)
    num_outer_rounds: int = 5

    @property
    def is_full(self) -> bool:
        """Whether the targets apply to this size."""
        return (self.num_tasks, self.outer) == (Settings.num_tasks, OuterStepSize())

    def __post_init__(self) -> None:
        counts = (self.num_tasks, *self.num_inner_steps, self.num_rounds, self.num_repeats, self.num_outer_rounds)
        if min(counts) < 1:
            raise ValueError(f"sizes of the meta_gradient benchmark are {counts}; must be positive")


def run(settings: Settings | None = None) -> dict[str, Any]:
    """Measure everything: milliseconds per update, their ratios, the targets, and the fraction of simulation."""
    settings = Settings() if settings is None else settings
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        small, large = _contenders(settings), outer_step.contenders(settings.outer)
        seconds = _times(small, settings.num_rounds, settings.num_repeats)
        seconds |= _times(large, settings.num_outer_rounds, 1)
        ratios = {}
        for group in (*(f"_{steps}" for steps in settings.num_inner_steps), ""):
            names = [name for name in (small if group else large) if name.endswith(group)]
            ours = f"batched{group}" if group else "outer_batched"
            for name in names:
                if name != ours:
                    pairs = zip(seconds[name], seconds[ours], strict=True)
                    ratios[f"{name} / {ours}"] = statistics.median(theirs / own for theirs, own in pairs)
        share = outer_step.simulation_share(settings.outer)
    finally:
        torch.set_num_threads(threads)
    return {
        "benchmark": "meta_gradient",
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "num_tasks": settings.num_tasks,
        "milliseconds": {name: 1000 * statistics.median(values) for name, values in seconds.items()},
        "ratios": ratios,
        "simulation_share": share,
        "targets": {
            name: {"at_least": target, "reached": ratios[name], "met": ratios[name] >= target}
            for name, target in TARGETS.items()
            if name in ratios and settings.is_full
        },
    }


def _times(contenders: dict[str, Contender], num_rounds: int, num_repeats: int) -> dict[str, list[float]]:
    """Seconds per contender and round, interleaved."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(num_rounds):
        for name, contender in contenders.items():
            started = time.perf_counter()
            for _ in range(num_repeats):
                contender()
            seconds[name].append((time.perf_counter() - started) / num_repeats)
    return seconds


def _contenders(settings: Settings) -> dict[str, Contender]:
    """All installed contenders, after checking that their meta-gradients agree."""
    generator = torch.Generator().manual_seed(0)
    family = Sinusoid()
    net = mlp((1, 40, 40, 1), activation="relu", output_gain=1.0, generator=generator)
    episode = family.episode(settings.num_tasks, "train", generator=generator)
    peers = {"higher": _higher, "torchopt": _torchopt}
    contenders: dict[str, Contender] = {}
    for steps in settings.num_inner_steps:
        for batching in BATCHINGS:
            name = "our_loop" if batching == "loop" else batching
            contenders[f"{name}_{steps}"] = _ours(net, episode, steps, batching)
        contenders[f"loop_{steps}"] = _loop(net, episode, steps)
        for name, peer in peers.items():
            if importlib.util.find_spec(name) is not None:
                contenders[f"{name}_{steps}"] = peer(net, episode, steps)
        expected = contenders[f"loop_{steps}"]()
        for name, contender in contenders.items():
            if name.endswith(f"_{steps}"):
                for gradient, known in zip(contender(), expected, strict=True):
                    torch.testing.assert_close(gradient, known, rtol=1e-3, atol=1e-5)
    return contenders


def _ours(net: nn.Module, episode: FewShotEpisode, num_steps: int, batching: Any) -> Contender:
    loss = supervised_loss(net, squared_errors)
    learner = GradientAdaptation(net, loss, FixedStepSizes(INNER_LR), num_steps=num_steps, batching=batching)
    parameters = list(net.parameters())

    def gradient() -> Sequence[Tensor]:
        state = learner.adapt(learner.prior(len(episode)), episode.support)
        return torch.autograd.grad(learner.losses(state, episode.query).mean(), parameters)

    return gradient


def _loop(net: nn.Module, episode: FewShotEpisode, num_steps: int) -> Contender:
    """A loop over tasks with plain autograd, as in most implementations of MAML."""
    names = [name for name, _ in net.named_parameters()]
    parameters = list(net.parameters())

    def gradient() -> Sequence[Tensor]:
        total = torch.zeros(())
        for task in range(len(episode)):
            support, query = episode.support[task], episode.query[task]
            own: Sequence[Tensor] = parameters
            for _ in range(num_steps):
                prediction = functional_call(net, dict(zip(names, own, strict=True)), (support.x,))
                slopes = torch.autograd.grad(squared_errors(prediction, support.y).mean(), own, create_graph=True)
                own = [p - INNER_LR * slope for p, slope in zip(own, slopes, strict=True)]
            prediction = functional_call(net, dict(zip(names, own, strict=True)), (query.x,))
            total = total + squared_errors(prediction, query.y).mean() / len(episode)
        return torch.autograd.grad(total, parameters)

    return gradient


def _higher(net: nn.Module, episode: FewShotEpisode, num_steps: int) -> Contender:
    higher = importlib.import_module("higher")
    parameters = list(net.parameters())

    def gradient() -> Sequence[Tensor]:
        net.zero_grad()
        for task in range(len(episode)):
            support, query = episode.support[task], episode.query[task]
            optimizer = torch.optim.SGD(parameters, lr=INNER_LR)
            with higher.innerloop_ctx(net, optimizer, copy_initial_weights=False) as (own, steps):
                for _ in range(num_steps):
                    steps.step(squared_errors(own(support.x), support.y).mean())
                (squared_errors(own(query.x), query.y).mean() / len(episode)).backward()
        return [p.grad.clone() for p in parameters if p.grad is not None]

    return gradient


def _torchopt(net: nn.Module, episode: FewShotEpisode, num_steps: int) -> Contender:
    torchopt = importlib.import_module("torchopt")
    parameters = list(net.parameters())

    def gradient() -> Sequence[Tensor]:
        net.zero_grad()
        optimizer = torchopt.MetaSGD(net, lr=INNER_LR)
        start_net = torchopt.extract_state_dict(net, by="reference")
        start_optimizer = torchopt.extract_state_dict(optimizer, by="reference")
        for task in range(len(episode)):
            support, query = episode.support[task], episode.query[task]
            for _ in range(num_steps):
                optimizer.step(squared_errors(net(support.x), support.y).mean())
            (squared_errors(net(query.x), query.y).mean() / len(episode)).backward()
            torchopt.recover_state_dict(net, start_net)
            torchopt.recover_state_dict(optimizer, start_optimizer)
        return [p.grad.clone() for p in parameters if p.grad is not None]

    return gradient


def main(json: bool = False) -> None:
    """Print the times and their ratios; json: print one JSON object."""
    result = run()
    if json:
        print(json_format.dumps(result))
        return
    for name, milliseconds in result["milliseconds"].items():
        print(f"{name:<26}{milliseconds:9.2f} ms")
    for name, ratio in result["ratios"].items():
        print(f"{name:<42}{ratio:7.2f}")
    print(f"simulation is {result['simulation_share']:.0%} of an iteration of MAML with a trust region")
    for name, target in result["targets"].items():
        print(f"asked: {name} at least {target['at_least']:g}; {'met' if target['met'] else 'NOT met'}")
