"""A picture of what an agent believes of a hidden goal after each step of a trial, over the exact posterior."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
        """The divergences in words."""
        after = ", ".join(f"{value:.3f} after episode {k}" for k, value in enumerate(self.divergence, start=1))
        return f"KL(exact || believed) in nats {after}"


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
    """The picture of the first task."""
    starts = beliefs.episode_start[:, 0].nonzero().flatten().tolist()[:MAX_EPISODES]
    lasts = [*starts[1:], len(beliefs.exact)][: len(starts)]
    rows = [range(start, min(last, start + MAX_STEPS)) for start, last in zip(starts, lasts, strict=True)]
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(0.72 * columns + 1.2, 1.6 * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots(2 * len(rows), columns, squeeze=False)
    for panel in axes.flat:
        panel.axis("off")
    for episode, row in enumerate(rows):
        for name, line, values in (("agent", 2 * episode, beliefs.believed), ("exact", 2 * episode + 1, beliefs.exact)):
            _label(axes[line, 0], f"{name}\nepisode {episode + 1}" if name == "agent" else name)
            for column, step in enumerate(row):
                _map(axes[line, column], values[step, 0].tolist())
                if line == 0:
                    axes[line, column].set_title(str(column), fontsize=8)
    figure.suptitle("Probability of the goal in each cell, after so many steps of the episode", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _map(axes: Axes, chances: Sequence[float]) -> None:
    """Probabilities of cells x * size + y as a square map, x to the right and y up; dark is likely."""
    size = round(len(chances) ** 0.5)
    columns = [list(chances[x * size : (x + 1) * size]) for x in range(size)]
    upright = [[columns[x][y] ** 0.5 for x in range(size)] for y in range(size)]  # the root shows small ones too
    axes.imshow(upright, cmap="Blues", vmin=0, vmax=1, origin="lower")
    axes.axis("on")
    axes.set(xticks=[], yticks=[])


def _label(axes: Axes, text: str) -> None:
    axes.text(-0.25, 0.5, text, transform=axes.transAxes, ha="right", va="center", fontsize=8)
