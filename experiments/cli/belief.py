"""A picture of what an agent believes of a hidden goal after each step of a trial, over the exact posterior."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.experiment.beliefs import GoalBeliefs, goal_beliefs, has_goal_beliefs
from metarl.protocols import TaskFamily

MAX_EPISODES = 6  # one below the other
MAX_STEPS = 16  # side by side
NUM_TASKS = 500  # over which divergences are averaged


@dataclass(frozen=True)
class BeliefPicture:
    """The picture, and how far the beliefs are from the exact ones."""

    png: bytes
    divergence: list[float]  # KL(exact || believed) in nats, after each episode but the last

    def __str__(self) -> str:
        """The divergences in a few words; empty where there was one episode only."""
        after = ", ".join(f"{value:.3f} after episode {k}" for k, value in enumerate(self.divergence, start=1))
        return f" (KL from the exact one: {after}, in nats)" if after else ""


def draw_beliefs(family: TaskFamily, agent: Any, num_episodes: int, *, seed: int = 0) -> BeliefPicture | None:
    """One test task's beliefs as rows of maps: for each episode, the agent's and the exact ones before each step.

    None where the agent predicts no rewards, or the family knows no exact posterior. The divergences are means over
    test tasks. All randomness comes from the seed.
    """
    if not has_goal_beliefs(family, agent):
        return None
    generator = torch.Generator().manual_seed(seed)
    tasks = family.sample(NUM_TASKS, "test", generator)
    beliefs = goal_beliefs(family, agent, tasks, num_episodes, generator=generator)
    return BeliefPicture(_drawn(beliefs), beliefs.divergence_by_episode())


def _drawn(beliefs: GoalBeliefs) -> bytes:
    """The picture of the first task: one mosaic of maps."""
    starts = beliefs.episode_start[:, 0].nonzero().flatten().tolist()[:MAX_EPISODES]
    ends = [*starts[1:], len(beliefs.exact)][: len(starts)]
    episodes = [slice(start, min(end, start + MAX_STEPS)) for start, end in zip(starts, ends, strict=True)]
    size = round(beliefs.exact.shape[-1] ** 0.5)
    columns = max(episode.stop - episode.start for episode in episodes)
    mosaic = np.full((len(episodes) * 2 * (size + 1), columns * (size + 1)), np.nan)
    labels: dict[float, str] = {}  # names of the lines of maps, by their middles
    for number, episode in enumerate(episodes):
        for line, (name, values) in enumerate((("agent", beliefs.believed), ("exact", beliefs.exact))):
            top = (2 * number + line) * (size + 1)
            labels[top + (size - 1) / 2] = f"{name}, episode {number + 1}"
            for column, chances in enumerate(values[episode, 0]):
                left = column * (size + 1)
                mosaic[top : top + size, left : left + size] = _map(chances.cpu().numpy(), size)
    height, width = mosaic.shape
    figure = Figure(figsize=(0.12 * width + 1.6, 0.12 * height + 0.9), layout="constrained")
    axes = figure.subplots()
    axes.imshow(mosaic, cmap="Blues", vmin=0, vmax=1)
    axes.set_yticks(list(labels), list(labels.values()), fontsize=8)
    middles = [column * (size + 1) + (size - 1) / 2 for column in range(columns)]
    axes.set_xticks(middles, [str(column) for column in range(columns)], fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_facecolor("#c8c8c8")  # between the maps
    axes.set_title("Probability of the goal in each cell, after so many steps of the episode", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _map(chances: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Probabilities of cells x * size + y as a square, x to the right and y up; their roots, to show small ones too."""
    return np.sqrt(chances.reshape(size, size).T[::-1])
