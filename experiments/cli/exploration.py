"""An image of an agent's exploration and adaptation: one row per task, one column per episode."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.cli.recording import Moment, describe, play, visible_env
from metarl.evaluation import measure_of
from metarl.protocols import Agent, TaskFamily
from metarl.rl.rollouts import rows_per_task
from metarl.run.directory import RunError
from metarl.run.files import reason, write_whole

NUM_TASKS = 4
MAX_EPISODES = 6  # side by side
_STRIP_HEIGHT = 22  # pixels of a line of text


def draw_exploration(
    family: TaskFamily, agent: Agent[Any, Any], num_episodes: int, path: Path, *, device: str = "cpu", seed: int = 0
) -> Path | None:
    """Write a PNG of the trajectories of each episode on a few test tasks; returns its path.

    A path goes from light to dark; a ring is where it starts. A row is headed by its task, and by the return of the
    oracle where that is known.

    None if the family's images do not show trajectories (robots), or cannot be made. At most six episodes.
    All randomness comes from the seed.

    Raises:
        RunError: when the disk refuses it.
    """
    if not can_draw_exploration(family):
        return None
    tasks = family.sample(NUM_TASKS, "test", torch.Generator().manual_seed(seed))
    num_episodes = min(num_episodes, MAX_EPISODES)
    rows = [
        _row(family, agent, tasks[n : n + 1], num_episodes, device, seed + n, f"task {n + 1}") for n in range(NUM_TASKS)
    ]
    try:
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(np.concatenate(rows)).save(buffer, "png")
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


def _row(
    family: TaskFamily, agent: Agent[Any, Any], task: Any, num_episodes: int, device: str, seed: int, name: str
) -> NDArray[np.uint8]:
    """The paths of all episodes in a task, side by side and halved in size, under what the task is.

    Of an agent that adapts in blocks, one episode of each block.
    """
    env, pictures, lines = visible_env(family, seed, rows_per_task(agent)), [], []
    measure = measure_of(agent)

    def watch(moment: Moment) -> None:
        env.follow()
        if moment.episode_end:
            number = measure.first + moment.episode - 1
            pictures.append(env.render()[::2, ::2])
            lines.append(f"{measure.point} {number}: {moment.episode_return:.1f}")

    play(env, agent, task, num_episodes, watch, device=device, seed=seed)
    about = [name, describe(task), *_best(family, task, num_episodes)]
    if agent.block is not None and agent.block > 1:
        about.append(f"one of {agent.block} episodes each")
    heads = np.concatenate([_strip(line, pictures[0].shape[1]) for line in lines], 1)
    title = _strip("   ".join(about), heads.shape[1], bold=True)
    return np.concatenate([title, heads, np.concatenate(pictures, 1)])


def _best(family: TaskFamily, task: Any, num_episodes: int) -> list[str]:
    """What the oracle reaches in an episode of a task, where it is known."""
    try:
        oracle = torch.as_tensor(family.bounds(task, num_episodes)["oracle"])
    except Exception:  # of a family's own bounds; the picture does without
        return []
    return [f"oracle {float(oracle.flatten()[0]):.1f}"]


def _strip(text: str, width: int, *, bold: bool = False) -> NDArray[np.uint8]:
    """A line of text on a strip [H, W, 3]; cut where it is too long."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(14 if bold else 13)
    while ImageDraw.Draw(Image.new("RGB", (1, 1))).textlength(text, font) > width - 12:
        text = f"{text.removesuffix('...')[:-1].rstrip()}..."
    paper, ink = ((28, 32, 42), (240, 241, 244)) if bold else ((238, 239, 242), (40, 44, 54))
    image = Image.new("RGB", (width, _STRIP_HEIGHT), paper)
    ImageDraw.Draw(image).text((6, 3), text, ink, font)
    return np.asarray(image)
