"""A picture of what an agent believes of its task after each step of a trial.

Of a goal among cells, over the exact posterior; of a velocity to move at, over the one that is meant.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.experiment.beliefs import (
    GoalBeliefs,
    VelocityBeliefs,
    goal_beliefs,
    has_goal_beliefs,
    has_velocity_beliefs,
    velocity_beliefs,
)
from metarl.protocols import TaskFamily

MAX_EPISODES = 6  # one below the other
MAX_STEPS = 16  # side by side
NUM_TASKS = 500  # over which divergences are averaged
NUM_VELOCITIES = 16  # tasks over which errors of velocities are averaged
_SHOWN = 3  # of them, one below the other
_EVERY = 5  # steps between beliefs about a velocity


@dataclass(frozen=True)
class BeliefPicture:
    """The picture, and how far the beliefs are from the truth."""

    png: bytes
    distance: list[float]  # after each episode but the last
    kind: str  # what that is a distance from
    unit: str

    def __str__(self) -> str:
        """The distances in a few words; empty where there was one episode only."""
        after = ", ".join(f"{value:.3f} after episode {k}" for k, value in enumerate(self.distance, start=1))
        return f" ({self.kind}: {after}, in {self.unit})" if after else ""


def draw_beliefs(family: TaskFamily, agent: Any, num_episodes: int, *, seed: int = 0) -> BeliefPicture | None:
    """Beliefs in test tasks, beside the truth; the distances are means over more tasks than are shown.

    Of a goal: one task's as rows of maps, for each episode the agent's and the exact ones before each step. Of a
    velocity: curves over the steps of the trial, with the deviation. None where the agent predicts no rewards, or the
    family has neither. All randomness comes from the seed.
    """
    generator = torch.Generator().manual_seed(seed)
    if has_goal_beliefs(family, agent):
        tasks = family.sample(NUM_TASKS, "test", generator)
        beliefs = goal_beliefs(family, agent, tasks, num_episodes, generator=generator)
        return BeliefPicture(_drawn(beliefs), beliefs.divergence_by_episode(), "KL from the exact one", "nats")
    if has_velocity_beliefs(family, agent):
        tasks = family.sample(NUM_VELOCITIES, "test", generator)
        found = velocity_beliefs(family, agent, tasks, num_episodes, every=_EVERY, generator=generator)
        return BeliefPicture(_curves(found), found.error_by_episode(), "distance from the velocity asked for", "m/s")
    return None


def _curves(beliefs: VelocityBeliefs) -> bytes:
    """The picture of the first tasks."""
    num_tasks = min(_SHOWN, len(beliefs.asked))
    figure = Figure(figsize=(8, 1.2 + 1.8 * num_tasks), layout="constrained")
    axes = figure.subplots(num_tasks, sharex=True, sharey=True, squeeze=False)[:, 0]
    for task, plot in enumerate(axes):
        mean, deviation = beliefs.mean[:, task].cpu(), beliefs.deviation[:, task].cpu()
        plot.plot(beliefs.step, beliefs.own[:, task].cpu(), color="#b0b0b0", linewidth=1, label="its own")
        plot.axhline(float(beliefs.asked[task]), color="#c44e52", linestyle="--", label="asked for")
        plot.plot(beliefs.step, mean, color="#4c72b0", label="believed to be asked for, with its deviation")
        plot.fill_between(beliefs.step, mean - deviation, mean + deviation, color="#4c72b0", alpha=0.25, linewidth=0)
        for start in beliefs.step[beliefs.episode_start[:, task].cpu()].tolist()[1:]:
            plot.axvline(start, color="black", linewidth=0.8)
        plot.set_ylabel("velocity [m/s]")
    axes[0].set_title("What the agent believes of the velocity, in a task each; lines part the episodes", fontsize=10)
    axes[-1].set_xlabel("steps of the trial")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


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
