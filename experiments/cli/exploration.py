"""An image of an agent's exploration and adaptation: one row per task, one column per episode."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.cli.recording import Moment, play, visible_env
from experiments.cli.video import captioned
from metarl.evaluation import measure_of
from metarl.protocols import Agent, TaskFamily
from metarl.rl.rollouts import rows_per_task
from metarl.run.directory import RunError
from metarl.run.files import reason, write_whole

NUM_TASKS = 4
MAX_EPISODES = 6  # side by side


def draw_exploration(
    family: TaskFamily, agent: Agent[Any, Any], num_episodes: int, path: Path, *, device: str = "cpu", seed: int = 0
) -> Path | None:
    """Write a PNG of the trajectories of each episode on a few test tasks; returns its path.

    None if the family's images do not show trajectories (robots), or cannot be made. At most six episodes.
    All randomness comes from the seed.

    Raises:
        RunError: when the disk refuses it.
    """
    if not can_draw_exploration(family):
        return None
    tasks = family.sample(NUM_TASKS, "test", torch.Generator().manual_seed(seed))
    num_episodes = min(num_episodes, MAX_EPISODES)
    rows = [_episodes(family, agent, tasks[n : n + 1], num_episodes, device, seed + n) for n in range(NUM_TASKS)]
    try:
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows])).save(buffer, "png")
        write_whole(path, buffer.getvalue())
    except OSError as error:
        raise RunError(f"cannot write {path}: {reason(error)}") from error
    return path


def can_draw_exploration(family: Any) -> bool:
    """Whether the family's images show trajectories; those of robots do not."""
    return hasattr(_innermost(family), "image")


def _innermost(family: Any) -> Any:
    """The family that others are around."""
    return _innermost(family.family) if hasattr(family, "family") else family


def _episodes(
    family: TaskFamily, agent: Agent[Any, Any], task: Any, num_episodes: int, device: str, seed: int
) -> list[NDArray[np.uint8]]:
    """The way of each episode, halved in size; of an agent that adapts in blocks, one episode of each block."""
    env, frames = visible_env(family, seed, rows_per_task(agent)), []
    measure = measure_of(agent)

    def watch(moment: Moment) -> None:
        env.follow()
        if moment.episode_end:
            number = measure.first + moment.episode - 1
            lines = [f"{measure.point} {number}    return {moment.episode_return:.1f}"]
            frames.append(captioned(env.render(), lines)[::2, ::2])

    play(env, agent, task, num_episodes, watch, device=device, seed=seed)
    return frames
