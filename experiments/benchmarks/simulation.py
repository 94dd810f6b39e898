"""Simulation speed: our closed-loop rollout, the raw limit of the engine and the peers, in one interleaved run.

All contenders step the half cheetah with frame skip 5 and the same policy: 2 x 64 tanh units, Gaussian samples and
their log-probabilities; observations, actions, log-probabilities and rewards are stored. The limit is the engine alone:
the same rows, threads and frame skip, controls drawn beforehand as the untrained policy draws them, nothing else.

Per-task dynamics are measured twice. `closed_loop_per_task` gives each task its own masses, damping and friction close
to the nominal ones: it costs what per-task fields cost. `closed_loop_rand_params` is the family as it is: bodies far
from the nominal one also take the solver more work, whichever way they are simulated.

Rounds are interleaved (each contender once a round, for about the same time), so that whatever else the machine does
befalls all alike. Speeds are medians over rounds; a ratio is the median of the rounds' ratios. On a machine that is
busy otherwise, contenders of many processes get a larger share of it: ratios to them mean little there.
"""

from __future__ import annotations

import json as json_format
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from envs.locomotion.half_cheetah import BODY, HalfCheetahRandParams, HalfCheetahVel
from envs.simulators.cpu import available_cpus, suitable_threads
from envs.simulators.model import load_model
from experiments.benchmarks import peers
from metarl.nets import PolicyHead
from metarl.records import Decision, Record, Step, Trajectory
from metarl.rollouts import collect

FRAME_SKIP = 5
PEER_STEPS = 20  # of all rows, what counts as an episode of a peer
NEAR_NOMINAL = 0.01  # exponents of the multipliers: masses differ by up to 0.4 %
TARGETS = {  # the least that is asked, at 800 and 64 rows
    "closed_loop_800 / limit_800": 0.80,
    "closed_loop_64 / limit_64": 0.65,
    "closed_loop_per_task_800 / closed_loop_800": 0.95,
    "closed_loop_800 / gymnasium_sync_800": 3.5,
    "closed_loop_800 / gymnasium_async_40": 10.0,
    "closed_loop_800 / gymnasium_async_200": 10.0,
    "closed_loop_800 / envpool_800": 1.4,
}


@dataclass(frozen=True)
class Settings:
    """The size of a benchmark."""

    rows: tuple[int, ...] = (64, 256, 800)
    copies: int = 8  # rows of each task
    num_rounds: int = 5
    horizon: int = 100  # steps of an episode
    seconds: float = 1.0  # of one measurement, about: whole episodes of all rows
    # One an environment: a meta-batch of the papers, one process a task; then many rows, as ours are. 800 processes
    # would take 14 GB.
    num_processes: tuple[int, ...] = (40, 200)

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if min(value if isinstance(value, tuple) else (value,)) <= 0:
                raise ValueError(f"{name} of the simulation benchmark is {value}: allowed are positive numbers")
        for rows in self.rows:
            if rows % self.copies:
                raise ValueError(f"rows has {rows}: allowed are multiples of copies, {self.copies}")


@dataclass(frozen=True)
class SampledDecision(Decision):
    """An action with its log-probability."""

    log_prob: Tensor  # [B]


class MemorylessAgent:
    """A 2 x 64 tanh policy that neither remembers nor learns: `metarl.protocols.Agent`."""

    block: int | None = None

    def __init__(self, generator: torch.Generator) -> None:
        family = HalfCheetahVel()
        sizes = (family.observation_space.shape[0], 64, 64)
        self._generator = generator
        self._policy: nn.Module = PolicyHead(
            sizes, family.action_space, activation="tanh", init_std=1.0, generator=generator
        )

    def prior(self, num_rows: int) -> None:
        return None

    def observe(self, state: None, action: Tensor | None, step: Step) -> None:
        return None

    def act(self, state: None, obs: Tensor, generator: torch.Generator | None) -> SampledDecision:
        distribution = self._policy(obs)
        action = distribution.mode if generator is None else distribution.sample(generator)
        return SampledDecision(action, distribution.log_prob(action))

    def adapt(self, state: None, trajectory: Trajectory[SampledDecision]) -> None:
        return None

    def update(self, trajectory: Trajectory[SampledDecision], generator: torch.Generator) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return self._policy.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._policy.load_state_dict(dict(state))

    def sample(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The same policy for environments of others: action [B, A] and its log-probability [B]."""
        decision = self.act(None, obs, self._generator)
        return decision.action, decision.log_prob


@dataclass(frozen=True)
class Contender:
    """Something whose speed is measured."""

    name: str
    num_rows: int
    measure: Callable[[int], tuple[int, float]]  # so many episodes: environment steps and the seconds they took
    close: Callable[[], Any]


def run(settings: Settings | None = None) -> dict[str, Any]:
    """Measure everything and return speeds (environment steps a second), their ratios, and what was asked for."""
    settings = Settings() if settings is None else settings
    generator = torch.Generator().manual_seed(0)
    contenders: list[Contender] = []
    num_torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for every contender's policy, as `collect` does for ours
    try:
        contenders = _contenders(settings, MemorylessAgent(generator), generator)
        speeds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
        num_episodes = {contender.name: _num_episodes(contender, settings.seconds) for contender in contenders}
        for _ in range(settings.num_rounds):
            for contender in contenders:
                num_steps, seconds = contender.measure(num_episodes[contender.name])
                speeds[contender.name].append(num_steps / seconds)
    finally:
        torch.set_num_threads(num_torch_threads)
        for contender in contenders:
            contender.close()
    rows = {contender.name: contender.num_rows for contender in contenders}
    ratios = {name: _ratio(speeds, *name.split(" / ")) for name in _ratio_names(settings, set(speeds))}
    return {
        "settings": {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()
        },
        "machine": _machine(),
        "env_steps_per_second": {
            name: {"rows": rows[name], "median": statistics.median(values), "rounds": values}
            for name, values in speeds.items()
        },
        "ratios": ratios,
        "targets": {
            name: {"asked": asked, "measured": ratios[name], "reached": ratios[name] >= asked}
            for name, asked in TARGETS.items()
            if name in ratios
        },
    }


def _contenders(settings: Settings, agent: MemorylessAgent, generator: torch.Generator) -> list[Contender]:
    """Peers first: their worker processes should start before ours hold threads."""
    result: list[Contender] = []
    makers: list[tuple[Callable[[int], peers.Peer | None], int]] = [
        *((peers.gymnasium_async, number) for number in settings.num_processes),
        (peers.sb3_subproc, min(settings.num_processes)),
        *((peers.gymnasium_sync, rows) for rows in sorted({min(settings.rows), max(settings.rows)})),
        *((peers.envpool, rows) for rows in settings.rows),
    ]
    for make, num_envs in makers:
        peer = make(num_envs)
        if peer is not None:
            result.append(_peer(peer, agent))
    for rows in settings.rows:
        families: dict[str, Any] = {
            "closed_loop": HalfCheetahVel(horizon=settings.horizon),
            "closed_loop_per_task": HalfCheetahRandParams(horizon=settings.horizon, log_scale_limit=NEAR_NOMINAL),
        }
        if rows == max(settings.rows):
            families["closed_loop_rand_params"] = HalfCheetahRandParams(horizon=settings.horizon)
        result.append(_limit(rows, settings, generator))
        result += [
            _closed_loop(f"{name}_{rows}", family, rows, settings, agent, generator)
            for name, family in families.items()
        ]
    return result


def _num_episodes(contender: Contender, seconds: float) -> int:
    """How many episodes take so long, by a first measurement that also warms up."""
    contender.measure(1)
    return max(1, round(seconds / contender.measure(1)[1]))


def _peer(peer: peers.Peer, agent: MemorylessAgent) -> Contender:
    """A peer, measured in short stretches: its episodes go on from one measurement to the next."""

    def measure(num_episodes: int) -> tuple[int, float]:
        return peer.measure(agent.sample, num_episodes * PEER_STEPS)

    return Contender(f"{peer.name}_{peer.num_rows}", peer.num_rows, measure, peer.close)


def _closed_loop(
    name: str, family: Any, rows: int, settings: Settings, agent: MemorylessAgent, generator: torch.Generator
) -> Contender:
    """Our rollout, as training runs it: reset with new tasks, act, step, reward, store, stack."""
    env = family.make_env(rows, generator)

    def measure(num_episodes: int) -> tuple[int, float]:
        tasks: Record = family.sample(rows // settings.copies, "train", generator)
        start = time.perf_counter()
        trajectory = collect(env, agent, tasks, num_episodes, generator=generator)
        return trajectory.num_steps, time.perf_counter() - start

    return Contender(name, rows, measure, lambda: None)


def _limit(rows: int, settings: Settings, generator: torch.Generator) -> Contender:
    """The engine alone; its resets and controls are prepared outside the clock."""
    from mujoco.batch import Batch

    batch = Batch(load_model(BODY), rows, suitable_threads(rows))
    qpos, qvel, ctrl = batch.bind("qpos"), batch.bind("qvel"), batch.bind("ctrl")
    controls = torch.randn(16, rows, ctrl.shape[1], generator=generator).clamp(-1, 1).double().numpy()

    def measure(num_episodes: int) -> tuple[int, float]:
        seconds = 0.0
        for _ in range(num_episodes):
            batch.reset()
            noise = np.random.default_rng(0)
            qpos[...] += noise.uniform(-0.1, 0.1, qpos.shape)
            qvel[...] = 0.1 * noise.standard_normal(qvel.shape)
            start = time.perf_counter()
            for step in range(settings.horizon):
                ctrl[...] = controls[step % len(controls)]
                batch.step(None, FRAME_SKIP)
            seconds += time.perf_counter() - start
        return num_episodes * settings.horizon * rows, seconds

    return Contender(f"limit_{rows}", rows, measure, lambda: None)


def _ratio(speeds: Mapping[str, list[float]], above: str, below: str) -> float:
    return statistics.median(a / b for a, b in zip(speeds[above], speeds[below], strict=True))


def _ratio_names(settings: Settings, measured: set[str]) -> list[str]:
    """Ours against the limit at each number of rows, per-task against shared dynamics, and ours against the peers."""
    names = []
    for rows in settings.rows:
        names += [f"closed_loop_{rows} / limit_{rows}", f"closed_loop_per_task_{rows} / closed_loop_{rows}"]
        names += [f"closed_loop_{rows} / {peer}_{rows}" for peer in ("gymnasium_sync", "envpool")]
    largest = max(settings.rows)
    names += [f"closed_loop_rand_params_{largest} / closed_loop_{largest}"]
    for number in settings.num_processes:
        names += [f"closed_loop_{largest} / {peer}_{number}" for peer in ("gymnasium_async", "sb3_subproc")]
    return [name for name in names if set(name.split(" / ")) <= measured]


def _machine() -> dict[str, Any]:
    return {
        "processor": platform.processor() or platform.machine(),
        "cpus": available_cpus(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "mujoco", "gymnasium", "stable-baselines3", "numpy")},
    }


def main(json: bool = False) -> None:
    """Print the result as a table, or as one JSON object."""
    result = run()
    if json:
        print(json_format.dumps(result))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    speeds = Table(title=f"half cheetah, environment steps a second, {result['machine']['cpus']} processors")
    for column in ("", "rows", "median", "slowest round", "fastest round"):
        speeds.add_column(column, justify="left" if column == "" else "right", no_wrap=True)
    for name, speed in result["env_steps_per_second"].items():
        numbers = (speed["median"], min(speed["rounds"]), max(speed["rounds"]))
        speeds.add_row(name, str(speed["rows"]), *(f"{number:,.0f}" for number in numbers))
    console.print(speeds)
    ratios = Table(title="ratios, median over rounds")
    for column in ("", "measured", "asked", "reached"):
        ratios.add_column(column, justify="left" if column == "" else "right", no_wrap=True)
    for name, ratio in result["ratios"].items():
        target = result["targets"].get(name)
        judged = ("", "") if target is None else (f"{target['asked']:.2f}", "yes" if target["reached"] else "no")
        ratios.add_row(name, f"{ratio:.2f}", *judged)
    console.print(ratios)
    if not any(name.startswith("envpool") for name in result["env_steps_per_second"]):
        console.print("EnvPool is not installed and was left out.")


if __name__ == "__main__":
    main()
