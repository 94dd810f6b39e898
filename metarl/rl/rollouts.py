"""Collecting experience: the only loop that steps an environment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from metarl.protocols import Agent, PosteriorSampling, VectorEnv
from metarl.records import Decision, Record, Step, Trajectory, stack

D = TypeVar("D", bound=Decision)


def collect(
    env: VectorEnv,
    agent: Agent[Any, D],
    tasks: Record,
    num_episodes: int,
    *,
    generator: torch.Generator | None,
    state: Any = None,
) -> Trajectory[D]:
    """Run `num_episodes` episodes in every row of the environment, starting from the given agent state.

    tasks: leading axis N, which divides the environment's B rows. state: the agent's state for these tasks and rows;
    None for its prior. generator: for sampled actions; None for the policy's mode.

    Rows that have finished their episodes are not simulated further and are marked not valid. All rows start their
    trial at index 0.

    Raises:
        ValueError: when num_episodes is below one.
    """
    if num_episodes < 1:
        raise ValueError(f"num_episodes is {num_episodes}; must be at least 1")
    steps: list[tuple[Tensor, D, Step, Tensor]] = []
    with torch.inference_mode(), _one_torch_thread(env.device):
        step = env.reset(tasks)
        if state is None:
            state = agent.prior(len(tasks), env.num_rows // len(tasks))
        state = agent.observe(state, None, step)
        draws = agent if isinstance(agent, PosteriorSampling) else None
        if draws is not None:
            state = draws.resample_latent(state, torch.ones_like(step.terminated), generator)
        episodes_left = torch.full((env.num_rows,), num_episodes, device=env.device)
        active = episodes_left > 0
        all_active = any_active = True
        sync_every = _steps_between_syncs(env.device)
        while any_active:
            obs = step.obs
            decision = agent.act(state, obs, generator)
            step = env.step(decision.action, None if all_active else active)
            state = agent.observe(state, decision.action, step)
            steps.append((obs, decision, step, active))
            episode_end = step.episode_end
            if sync_every > 1 or bool(episode_end.any()):
                if draws is not None:
                    state = draws.resample_latent(state, episode_end, generator)
                episodes_left = episodes_left - episode_end.long()
                active = episodes_left > 0
                all_active = sync_every == 1 and bool(active.all())
            if not all_active and len(steps) % sync_every == 0:
                any_active = bool(active.any())
    return _as_trajectory(steps)


def run_trial(
    env: VectorEnv, agent: Agent[Any, D], tasks: Record, num_points: int, *, generator: torch.Generator | None
) -> Iterator[Trajectory[D]]:
    """Run a trial from the agent's prior: blocks of episodes, with the agent adapting in between.

    num_points: points of the adaptation curve: episodes for an agent whose whole trial is one block, otherwise blocks.
    The environment has `rows_per_task` rows per task, or a divisor of that. Other arguments: as for `collect`.

    Raises:
        ValueError: when num_points is below one, or the episodes of a block do not spread evenly over the rows.
    """
    if num_points < 1:
        raise ValueError(f"num_points is {num_points}; must be at least 1")
    copies = env.num_rows // len(tasks)
    if agent.block is None:
        yield collect(env, agent, tasks, num_points, generator=generator)
        return
    if agent.block % copies:
        raise ValueError(f"{agent.block} episodes of a block do not spread evenly over {copies} rows of each task")
    state = agent.prior(len(tasks), copies)
    for point in range(num_points):
        trajectory = collect(env, agent, tasks, agent.block // copies, generator=generator, state=state)
        yield trajectory
        if point < num_points - 1:
            state = agent.adapt(state, trajectory)


def rows_per_task(agent: Agent[Any, Any]) -> int:
    """Rows per task that run all episodes of a block in parallel."""
    return 1 if agent.block is None else agent.block


def _steps_between_syncs(device: torch.device) -> int:
    """Steps between checks whether all trials are over; on an accelerator each check forces a synchronisation."""
    return 1 if device.type == "cpu" else 64


def _as_trajectory(steps: list[tuple[Tensor, D, Step, Tensor]]) -> Trajectory[D]:
    """Stack the steps over time, outside inference mode because the result may enter an autograd graph."""
    obs, decisions, results, active = zip(*steps, strict=True)
    valid = torch.stack(active)
    num_steps = int(valid.any(1).sum())  # steps after the last trial's end are dropped
    results, valid = results[:num_steps], valid[:num_steps]
    terminated = torch.stack([result.terminated for result in results])
    truncated = torch.stack([result.truncated for result in results])
    trial_start = torch.zeros_like(valid)
    trial_start[0] = True
    return Trajectory(
        obs=torch.stack(obs[:num_steps]),
        decision=stack(decisions[:num_steps]),
        reward=torch.stack([result.reward for result in results]),
        next_obs=torch.stack([result.next_obs for result in results]),
        terminated=terminated,
        truncated=truncated,
        episode_start=torch.cat([trial_start[:1], (terminated | truncated)[:-1]]) & valid,
        trial_start=trial_start,
        valid=valid,
        metrics=None if results[0].metrics is None else torch.stack([_metrics(result) for result in results]),
    )


def _metrics(step: Step) -> Tensor:
    """The metrics of a step.

    Raises:
        ValueError: when an environment omits the metrics that it returned at other steps.
    """
    if step.metrics is None:
        raise ValueError("metrics is None at one step of the environment; must be given at every step or at none")
    return step.metrics


@contextmanager
def _one_torch_thread(device: torch.device) -> Iterator[None]:
    """Use one torch thread: while native physics threads occupy the cores, a CPU policy is fastest this way."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
