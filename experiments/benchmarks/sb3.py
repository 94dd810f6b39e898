"""Stable-Baselines3's PPO through our bridge, compared with the same PPO on SB3's own worker processes, in one run.

The bridge runs `half_cheetah_vel`, the processes Gymnasium's HalfCheetah-v5: the same body, frame skip, sizes of
observation and action, and episode length, which the cheetah never ends early. Algorithm, network, seed and all PPO
settings are equal, and SB3's defaults unless given here; torch has one thread.

A round is one call of `learn` per contender, interleaved, so other load on the machine affects both. `collect` is the
time within `collect_rollouts`, `learn` the total time, including PPO's updates. Speeds are medians over rounds; a ratio
is the median of the rounds' ratios. Updates take equally long for both, so the ratio of `learn` approaches one as they
outweigh collection. On a busy machine the scheduler treats many processes and a few threads differently, in either's
favour: measure ratios on an idle one.
"""

from __future__ import annotations

import json as json_format
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv

from envs.bridges.sb3_vec_env import as_vec_env
from envs.catalog import make
from envs.simulators.cpu_count import available_cpus
from experiments.benchmarks import peers
from metarl.run.provenance import versions

HORIZON = 1000  # episode length of Gymnasium's HalfCheetah-v5
OURS, THEIRS = "bridge", "subproc"
TARGETS = {f"collect_{OURS} / collect_{THEIRS}": 3.0}  # smallest ratio


@dataclass(frozen=True)
class Settings:
    """The size of a benchmark."""

    num_envs: int = 64
    n_steps: int = 64  # number of steps per environment and rollout (PPO's name)
    num_rollouts: int = 2  # number of rollouts per round, each followed by an update
    num_rounds: int = 5

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ValueError(f"{name} of the sb3 benchmark is {value}; must be at least 1")


class _CollectionClock(BaseCallback):
    """Sums the duration of `collect_rollouts`."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self._started = 0.0

    def _on_training_start(self) -> None:
        self.seconds = 0.0

    def _on_rollout_start(self) -> None:
        self._started = time.perf_counter()

    def _on_rollout_end(self) -> None:
        self.seconds += time.perf_counter() - self._started

    def _on_step(self) -> bool:
        return True


class _Contender:
    """A PPO and its environments; each measurement continues the training where the last one ended."""

    def __init__(self, env: VecEnv, settings: Settings) -> None:
        self.env = env
        self._clock = _CollectionClock()
        self._num_steps = settings.num_envs * settings.n_steps * settings.num_rollouts
        self._ppo = PPO("MlpPolicy", env, n_steps=settings.n_steps, device="cpu", seed=0)
        self._ppo.set_logger(Logger(None, []))  # SB3's default logger creates a folder per call of `learn`

    def measure(self) -> tuple[float, float]:
        """Environment steps per second of collection alone and of learning in total."""
        started = time.perf_counter()
        self._ppo.learn(self._num_steps, callback=self._clock, reset_num_timesteps=False)
        return self._num_steps / self._clock.seconds, self._num_steps / (time.perf_counter() - started)


def run(settings: Settings | None = None) -> dict[str, Any]:
    """Measure both and return speeds (environment steps per second), their ratios, and the targets."""
    settings = Settings() if settings is None else settings
    num_torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    envs: dict[str, VecEnv] = {}
    try:
        envs[THEIRS] = peers.sb3_vec_env("half_cheetah", settings.num_envs)  # start workers before ours creates threads
        envs[OURS] = as_vec_env(make("half_cheetah_vel", horizon=HORIZON), settings.num_envs)
        speeds = _speeds({name: _Contender(env, settings) for name, env in envs.items()}, settings.num_rounds)
    finally:
        torch.set_num_threads(num_torch_threads)
        for env in envs.values():
            env.close()
    ratios = {}
    for what in ("collect", "learn"):
        pairs = zip(speeds[f"{what}_{OURS}"], speeds[f"{what}_{THEIRS}"], strict=True)
        ratios[f"{what}_{OURS} / {what}_{THEIRS}"] = statistics.median(ours / theirs for ours, theirs in pairs)
    return {
        "settings": asdict(settings),
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cpus": available_cpus(),
            "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            **versions(),
        },
        "env_steps_per_second": {
            name: {"median": statistics.median(values), "rounds": values} for name, values in speeds.items()
        },
        "ratios": ratios,
        "targets": {
            name: {"asked": asked, "measured": ratios[name], "reached": ratios[name] >= asked}
            for name, asked in TARGETS.items()
        },
    }


def _speeds(contenders: dict[str, _Contender], num_rounds: int) -> dict[str, list[float]]:
    """The speeds of all rounds, after a warm-up: the first `learn` also resets the environments."""
    speeds: dict[str, list[float]] = {f"{what}_{name}": [] for what in ("collect", "learn") for name in contenders}
    for index in range(num_rounds + 1):
        for name, contender in contenders.items():
            collect, learn = contender.measure()
            if index > 0:
                speeds[f"collect_{name}"].append(collect)
                speeds[f"learn_{name}"].append(learn)
    return speeds


def main(json: bool = False) -> None:
    """Print speeds and ratios; json: print one JSON object."""
    result = run()
    if json:
        print(json_format.dumps(result))
        return
    print(f"environment steps per second, {result['settings']['num_envs']} environments")
    for name, speed in result["env_steps_per_second"].items():
        print(f"{name:<18}{speed['median']:10,.0f}   {min(speed['rounds']):,.0f} to {max(speed['rounds']):,.0f}")
    for name, ratio in result["ratios"].items():
        print(f"{name:<36}{ratio:7.2f}")
    for name, target in result["targets"].items():
        print(f"asked: {name} at least {target['asked']:g}; {'met' if target['reached'] else 'NOT met'}")
