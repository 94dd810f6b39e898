"""Meta-gradients: one update of sinusoid MAML and of ProMP, compared with a loop over tasks and other libraries.

Sinusoid: 25 tasks of 10 shots and 10 queries, the 40-40 relu net, 1 and 5 inner steps. ProMP: see outer_step.py.
Float32, one thread; the optimiser's step is left out, as it is the same for all. All contenders' meta-gradients are
compared before any is timed, as experiments/benchmarks/harness.py does. `higher` and `torchopt` are measured where they
are installed. Beside them: how much of an iteration of MAML with a trust region is simulation.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from experiments.benchmarks import outer_step
from experiments.benchmarks.harness import Result, interleave, ratios, report, timed
from experiments.benchmarks.outer_step import Contender, OuterStepSize
from metarl.adaptation.batching import BATCHINGS
from metarl.adaptation.gradient import GradientAdaptation, supervised_loss
from metarl.adaptation.step_sizes import FixedStepSizes
from metarl.fewshot.episode import FewShotEpisode
from metarl.fewshot.problem import squared_errors
from metarl.fewshot.regression import Sinusoid
from metarl.nets.mlp import mlp
from metarl.torch_settings import torch_threads

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


def run(settings: Settings | None = None) -> Result:
    """Measure everything: seconds per update, their ratios, what was asked for, and the fraction of simulation."""
    settings = Settings() if settings is None else settings
    with torch_threads(1):
        small, large = _contenders(settings), outer_step.contenders(settings.outer)
        rounds = interleave(
            {name: timed(work, settings.num_repeats) for name, work in small.items()}, settings.num_rounds
        )
        rounds |= interleave({name: timed(work) for name, work in large.items()}, settings.num_outer_rounds)
        simulating = outer_step.simulation_share(settings.outer)
    names = [
        f"{name} / batched_{steps}"
        for steps in settings.num_inner_steps
        for name in small
        if name.endswith(f"_{steps}") and name != f"batched_{steps}"
    ]
    names += [f"{name} / outer_batched" for name in large if name != "outer_batched"]
    return Result(
        "meta_gradient",
        settings,
        dict.fromkeys(rounds, "s/update"),
        rounds,
        ratios(rounds, names),
        asked=TARGETS if settings.is_full else {},
        details={"simulation_share": simulating},
    )


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
    """Print the times and their ratios; one JSON object where that is asked for."""
    report(run(), json)
