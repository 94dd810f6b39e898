"""The latency of one step of an exported agent, batch 1, one thread, beside the same step in PyTorch.

A half cheetah's sizes (17 observations, 6 actions) and fresh weights, whose values do not affect the time.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.memories import MEMORIES
from agents.pearl import PEARLConfig
from agents.rl2 import RL2Config
from envs.locomotion.half_cheetah import HalfCheetahVel
from experiments.benchmarks.harness import Result, interleave, ratios, report
from experiments.exporting.export import OPSET
from experiments.exporting.files import OnnxFile
from experiments.exporting.graphs import captured, save_onnx, step_graph
from metarl.records import Step
from metarl.torch_settings import torch_threads

AGENTS: dict[str, Any] = {
    **{f"rl2 {name} 128": RL2Config(memory=memory, hidden_size=128) for name, memory in MEMORIES.items()},
    "rl2 gru 256": RL2Config(hidden_size=256),
    "pearl": PEARLConfig(),
}


@dataclass(frozen=True)
class Settings:
    """The size of the benchmark."""

    agents: tuple[str, ...] = tuple(AGENTS)
    num_steps: int = 2000  # timed steps per round
    num_rounds: int = 5
    trial: int = 400  # steps that a memory of a fixed number of places holds


def main(*, json: bool = False, settings: Settings | None = None) -> None:
    """Measure and report."""
    report(measured(Settings() if settings is None else settings), json)


def measured(settings: Settings) -> Result:
    """The median and the 99th percentile of a step's microseconds, by agent, and the sizes of the files."""
    family, steps, sizes = HalfCheetahVel(), {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in settings.agents:
            config = AGENTS[name]
            generator = torch.Generator().manual_seed(0)
            agent = config.make(family.observation_space, family.action_space, num_iterations=1, generator=generator)
            path = Path(folder) / "step.onnx"
            graph = step_graph(agent.deployed(settings.trial), family.observation_space, family.action_space)
            save_onnx(captured(graph), graph, path, {"inputs": {}, "state": graph.state}, OPSET)
            sizes[name] = path.stat().st_size
            steps[f"{name}, ONNX"] = _file_step(OnnxFile(path), graph.inputs)
            steps[f"{name}, torch"] = _torch_step(agent, graph.inputs["obs"][:1])
    slowest: dict[str, list[float]] = {}

    def microseconds(name: str) -> Callable[[], float]:
        def measure() -> float:
            times = _times(steps[name], settings.num_steps)
            slowest.setdefault(name, []).append(float(np.quantile(times, 0.99)))
            return statistics.median(times)

        return measure

    with torch.inference_mode(), torch_threads(1):
        rounds = interleave({name: microseconds(name) for name in steps}, settings.num_rounds)
    named = {f"{name}, median": values for name, values in rounds.items()}
    named |= {f"{name}, p99": values for name, values in slowest.items()}
    return Result(
        benchmark="export",
        settings=settings,
        units=dict.fromkeys(named, "µs/step"),
        rounds=named,
        ratios=ratios(named, [f"{name}, torch, median / {name}, ONNX, median" for name in settings.agents]),
        details={"file_bytes": sizes, **{f"{name}_kB": round(size / 1e3) for name, size in sizes.items()}},
    )


def _file_step(file: OnnxFile, example: dict[str, torch.Tensor]) -> Callable[[], object]:
    """A step of the file, whose state is fed back."""
    values = {name: value[:1].numpy().copy() for name, value in example.items()}
    state, session, outputs = file.metadata["state"], file.session, file.outputs

    def step() -> None:
        result = dict(zip(outputs, session.run(outputs, values), strict=True))
        for name, output in state.items():
            values[name] = result[output]

    return step


def _torch_step(agent: Any, obs: torch.Tensor) -> Callable[[], object]:
    """A step of the agent as in training: it reads what happened, and acts."""
    no = torch.zeros(1, dtype=torch.bool)
    result = Step(obs, obs, torch.zeros(1), no, no)
    with torch.inference_mode():
        first = agent.observe(agent.prior(1), None, result)

    def step() -> None:
        state = first  # a memory that grows would be measured at another length in each round
        action = agent.act(state, obs, None).action
        agent.observe(state, action, result)

    return step


def _times(step: Callable[[], object], num_steps: int) -> list[float]:
    """The microseconds of each of some steps."""
    times = []
    for _ in range(num_steps):
        started = time.perf_counter()
        step()
        times.append(1e6 * (time.perf_counter() - started))
    return times
