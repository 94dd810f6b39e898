"""Peers that run many of Gymnasium's v5 robots with the same policy: Gymnasium, Stable-Baselines3 and EnvPool.

Each runs under its best conditions: no passive checker, only its default wrappers, workers started beforehand, and only
the steps timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import SubprocVecEnv

Policy = Callable[[Tensor], tuple[Tensor, Tensor]]  # obs [B, O] -> action [B, A], log_prob [B]
StepFunction = Callable[[Any], tuple[Any, ...]]  # action [B, A] -> obs [B, O], reward [B], ...


def make_gymnasium(body: str) -> gymnasium.Env[Any, Any]:
    """Gymnasium's own environment of a body, without MuJoCo's warning file in the working directory."""
    import mujoco

    mujoco.set_mju_user_warning(_ignore)  # pyright: ignore[reportAttributeAccessIssue]
    contact_forces = {"include_cfrc_ext_in_observation": False} if body in ("ant", "humanoid") else {}  # as ours
    return gymnasium.make(f"{gymnasium_name(body)}-v5", disable_env_checker=True, **contact_forces)


def gymnasium_name(body: str) -> str:
    """Gymnasium's name of a body, e.g. "HalfCheetah" for "half_cheetah"."""
    return body.title().replace("_", "").replace("2D", "2d")


def _ignore(message: str) -> None:
    return


class Peer:
    """A peer's vectorised robot; stepping continues where the last measurement ended."""

    def __init__(self, name: str, num_rows: int, obs: Any, step: StepFunction, close: Callable[[], Any]) -> None:
        self.name = name
        self.num_rows = num_rows
        self.close = close
        self._obs = obs
        self._step = step

    def measure(self, policy: Policy, num_steps: int) -> tuple[int, float]:
        """Environment steps and seconds for `num_steps` steps of all rows; all data are stored, as in ours."""
        stored: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        start = time.perf_counter()
        with torch.inference_mode():
            for _ in range(num_steps):
                obs = torch.as_tensor(self._obs, dtype=torch.float32)
                action, log_prob = policy(obs)
                self._obs, reward, *_ = self._step(action.clamp(-1, 1).numpy())
                stored.append((obs, action, log_prob, torch.as_tensor(reward, dtype=torch.float32)))
            for values in zip(*stored, strict=True):
                torch.stack(values)
        return num_steps * self.num_rows, time.perf_counter() - start


def gymnasium_sync(body: str, num_envs: int) -> Peer:
    env = gymnasium.vector.SyncVectorEnv([partial(make_gymnasium, body)] * num_envs)
    return Peer(f"gymnasium_sync_{body}", num_envs, env.reset(seed=0)[0], env.step, env.close)


def gymnasium_async(body: str, num_envs: int) -> Peer:
    """One process per environment, started by a server without threads."""
    _preload()
    env = gymnasium.vector.AsyncVectorEnv([partial(make_gymnasium, body)] * num_envs, context="forkserver")
    return Peer(f"gymnasium_async_{body}", num_envs, env.reset(seed=0)[0], env.step, env.close)


def sb3_vec_env(body: str, num_envs: int) -> SubprocVecEnv:
    """One process per environment."""
    from stable_baselines3.common.vec_env import SubprocVecEnv

    _preload()
    return SubprocVecEnv([partial(make_gymnasium, body)] * num_envs, start_method="forkserver")


def sb3_subproc(body: str, num_envs: int) -> Peer:
    env = sb3_vec_env(body, num_envs)
    return Peer(f"sb3_subproc_{body}", num_envs, env.reset(), env.step, env.close)


class NotComparableError(Exception):
    """A peer is not installed, or has nothing that is like ours; the message is one line."""


def envpool(body: str, num_envs: int) -> Peer:
    """EnvPool with as many threads as there are processors, on its robot of the same observations and actions as ours.

    Raises:
        NotComparableError: where it is not installed, or has no such robot.
    """
    try:
        import envpool  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise NotComparableError("EnvPool is not installed and was left out") from error
    from envs.simulators.cpu_count import available_cpus

    single = make_gymnasium(body)
    ours = tuple(space.shape or (0,) for space in (single.observation_space, single.action_space))
    single.close()
    sizes = {}
    for task, options in _envpool_tasks(body, set(envpool.list_all_envs())):
        try:
            env = envpool.make(
                task, env_type="gymnasium", num_envs=num_envs, num_threads=available_cpus(), seed=0, **options
            )
        except Exception as error:  # whatever a version that lacks the option raises
            sizes[task] = f"{type(error).__name__}"
            continue
        if (env.observation_space.shape, env.action_space.shape) == ours:
            break
        sizes[task] = f"{env.observation_space.shape[0]} observations"
        env.close()
    else:
        theirs = ", ".join(f"{task} has {size}" for task, size in sizes.items()) or "it has no such robot"
        raise NotComparableError(f"EnvPool was left out for {body}: {theirs}; ours has {ours[0][0]} observations")

    def step(action: np.ndarray[Any, Any]) -> tuple[Any, ...]:
        return env.step(action.astype(np.float64))

    return Peer(f"envpool_{body}", num_envs, env.reset()[0], step, env.close)


def _envpool_tasks(body: str, known: set[str]) -> list[tuple[str, dict[str, Any]]]:
    """EnvPool's robots of a body, by name, with the options by which they can be like ours: the likeliest first."""
    name = gymnasium_name(body)
    without_contact_forces = {"use_contact_force": False} if body in ("ant", "humanoid") else {}
    tasks = [(f"{name}-v5", without_contact_forces), (f"{name}-v4", {})]
    return [(task, options) for task, options in tasks if task in known]


def _preload() -> None:
    """Import the workers' modules once, in the server that they fork from."""
    import multiprocessing

    multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["stable_baselines3.common.vec_env.subproc_vec_env", "gymnasium.envs.mujoco", __name__]
    )
