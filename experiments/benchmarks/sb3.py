"""Stable-Baselines3's PPO through our bridge, compared with the same PPO on SB3's own worker processes, in one run.

The bridge runs `half_cheetah_vel`, the processes Gymnasium's HalfCheetah-v5: the same body, frame skip, sizes of
observation and action, and episode length, which the cheetah never ends early. Algorithm, network, seed and all PPO
settings are equal, and SB3's defaults unless given here; torch has one thread.

A round (experiments/benchmarks/harness.py) is one call of `learn` for each contender. `collect` counts the time within
`collect_rollouts` alone, `learn` all of it, PPO's updates included. Updates cost both the same, so the ratio of `learn`
falls to one as they outweigh collection. On a machine that is busy otherwise the scheduler treats many processes and a
few threads differently, in either's favour: judge ratios on an idle one.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv

from envs.bridges.sb3_vec_env import as_vec_env
from envs.catalog import make
from experiments.benchmarks import peers
from experiments.benchmarks.harness import Result, interleave, ratios, report
from metarl.torch_settings import torch_threads

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
        self._learn = 0.0
        self._ppo.set_logger(Logger(None, []))  # SB3's own makes a folder for each call of `learn`

    def collect(self) -> float:
        """Environment steps per second of collection alone, in one call of `learn`."""
        started = time.perf_counter()
        self._ppo.learn(self._num_steps, callback=self._clock, reset_num_timesteps=False)
        self._learn = self._num_steps / (time.perf_counter() - started)
        return self._num_steps / self._clock.seconds

    def learn(self) -> float:
        """Environment steps per second of that call as a whole, updates included."""
        return self._learn


def run(settings: Settings | None = None) -> Result:
    """Measure both: environment steps per second, their ratios, and what was asked for."""
    settings = Settings() if settings is None else settings
    envs: dict[str, VecEnv] = {}
    with torch_threads(1):
        try:
            envs[THEIRS] = peers.sb3_vec_env("half_cheetah", settings.num_envs)  # before ours hold threads
            envs[OURS] = as_vec_env(make("half_cheetah_vel", horizon=HORIZON), settings.num_envs)
            measured = {}
            for name, env in envs.items():
                contender = _Contender(env, settings)
                measured |= {f"collect_{name}": contender.collect, f"learn_{name}": contender.learn}
            rounds = interleave(measured, settings.num_rounds, warm_up=True)  # the first `learn` also resets
        finally:
            for env in envs.values():
                env.close()
    names = [f"{what}_{OURS} / {what}_{THEIRS}" for what in ("collect", "learn")]
    return Result("sb3", settings, dict.fromkeys(rounds, "env-steps/s"), rounds, ratios(rounds, names), asked=TARGETS)


def main(json: bool = False) -> None:
    """Print speeds and ratios; one JSON object where that is asked for."""
    report(run(), json)
