"""PPO without meta-learning: one policy for all tasks, with the task visible or hidden.

Schulman et al. 2017, by Stable-Baselines3. "ppo_hidden" is a memoryless policy that cannot distinguish tasks;
"ppo_visible" also observes the task's parameters, and has nothing to find out. Both learn on a fresh task at every
episode, for the number of steps reported with the result: few steps give a weak baseline. On test tasks they act by the
mode of the policy.

Deviations from SB3's defaults: observations and rewards are normalised (`VecNormalize`, clipped to 10 deviations), 32
rows collect 64 steps each, and batches have 256 steps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from envs.bridges.sb3_vec_env import as_vec_env
from experiments.baselines import BaselineResult
from experiments.baselines.trials import play
from metarl.protocols import TaskFamily
from metarl.records import Record, task_numbers

NUM_ROWS, STEPS_PER_ROW, BATCH = 32, 64, 256


def ppo_baselines(
    family: TaskFamily, tasks: Record, num_steps: int, generator: torch.Generator
) -> list[BaselineResult]:
    """Both on the test tasks `tasks` [N], after `num_steps` steps each on training tasks, rounded up to whole rollouts.

    Raises:
        ValueError: when rows of the family's environment cannot change their tasks one by one.
    """
    results = []
    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    for name, visible in (("ppo_hidden", False), ("ppo_visible", True)):
        act, taken = _learned(family, visible, num_steps, seed)
        returns = play(family, tasks, act, generator)
        results.append(BaselineResult.of(name, returns, None, f"no meta-learning; {taken:,} steps, one seed"))
    return results


def _learned(
    family: TaskFamily, visible: bool, num_steps: int, seed: int
) -> tuple[Callable[[Tensor, Record], Tensor], int]:
    """The policy's mode as a function of observations [B, O] and tasks [B], and the steps it has learned from."""
    env = VecNormalize(as_vec_env(family, NUM_ROWS, visible=visible, fresh=True, seed=seed))
    try:
        ppo = PPO("MlpPolicy", env, n_steps=STEPS_PER_ROW, batch_size=BATCH, device="cpu", seed=seed)
        ppo.set_logger(Logger(None, []))  # SB3's default logger creates a folder
        ppo.learn(num_steps)
    finally:
        env.close()
    return partial(_act, ppo, env, visible), ppo.num_timesteps


def _act(ppo: PPO, env: VecNormalize, visible: bool, obs: Tensor, tasks: Record) -> Tensor:
    seen = torch.cat([obs, task_numbers(tasks, len(obs))], dim=1) if visible else obs
    action, _ = ppo.predict(env.normalize_obs(seen.numpy()), deterministic=True)  # pyright: ignore[reportArgumentType]
    return torch.as_tensor(action)
