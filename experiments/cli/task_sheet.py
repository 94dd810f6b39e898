"""A sheet of sampled tasks: one image of each, after some steps of random actions, over its parameters."""

from __future__ import annotations

import io
import math
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments.baselines.trials import random_actions
from experiments.cli.recording import visible_env
from metarl.protocols import TaskFamily
from metarl.records import Record
from metarl.run.files import write_whole

COLUMNS = 4
_SHOWN = 3  # parameters of one number in a caption; parameters of many numbers have no place in it


def draw_sheet(family: TaskFamily, num_tasks: int, num_steps: int, seed: int, path: Path) -> None:
    """Write the sheet as a PNG.

    Raises:
        UserError: when the family cannot be rendered.
        OSError: when the file cannot be written.
    """
    env, generator = visible_env(family, seed, num_tasks), torch.Generator().manual_seed(seed)
    tasks = family.sample(num_tasks, "train", generator)
    step, alive = env.reset(tasks), torch.ones(num_tasks, dtype=torch.bool)
    for _ in range(num_steps):
        step = env.step(random_actions(family.action_space, num_tasks, generator), alive)
        alive &= ~step.episode_end
    columns = min(COLUMNS, num_tasks)
    rows = math.ceil(num_tasks / columns)
    figure = Figure(figsize=(3.2 * columns, 2.8 * rows), layout="constrained")
    for row in range(num_tasks):
        axes = figure.add_subplot(rows, columns, row + 1)
        axes.imshow(env.render(row))
        axes.set_axis_off()
        ended = "" if bool(alive[row]) else "\nended"
        axes.set_title(f"{_caption(tasks, row)}{ended}", fontsize=8)
    figure.suptitle(f"{family.name}: {num_tasks} training tasks after {num_steps} random actions", fontsize=10)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    write_whole(path, drawn.getvalue())


def _caption(tasks: Record, row: int) -> str:
    """The parameters of a task that are a few numbers; of others, how many there are."""
    parts, left_out = [], 0
    for name, value in vars(tasks).items():
        if not isinstance(value, Tensor) or not value.numel():
            continue
        numbers = value[row].flatten().tolist()
        if len(numbers) <= _SHOWN:
            parts.append(f"{name} {', '.join(f'{number:.3g}' for number in numbers)}")
        else:
            left_out += len(numbers)
    return "\n".join([*parts, *([f"and {left_out} numbers" if parts else f"{left_out} numbers"] if left_out else [])])
