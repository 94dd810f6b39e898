"""Learning histories of a trained agent: what it does in fresh training tasks, from its prior on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from metarl.errors import UserError
from metarl.records import Digest, cat
from metarl.rl.history_files import write_histories
from metarl.rl.rollouts import rows_per_task, run_trial
from metarl.rl.trials import ActingSource
from metarl.trainer import Trainer


def record_histories(trainer: Trainer, folder: Path, num_tasks: int, num_points: int, seed: int) -> tuple[int, int]:
    """Run a trial in each of so many training tasks and write them; returns the numbers of histories and episodes.

    An agent that runs several episodes of a task in parallel gives as many histories of each task.

    Raises:
        UserError: when the learner does not act, or the histories cannot be written.
    """
    if not isinstance(trainer.source, ActingSource):
        raise UserError(f"{trainer.agent_name} does not act; histories are those of RL agents")
    agent: Any = trainer.agent
    generator = torch.Generator().manual_seed(seed)
    tasks = trainer.family.sample(num_tasks, "train", generator)
    env = trainer.family.make_env(num_tasks * rows_per_task(agent), generator)
    trajectory = cat(list(run_trial(env, agent, tasks, num_points, generator=generator)))
    digest = Digest()
    digest.add(tasks)
    made_by = {"algorithm_name": trainer.agent_name, "tasks_hash": str(digest)}
    num_episodes = write_histories(folder, trainer.family, trajectory, split="train", made_by=made_by)
    return trajectory.valid.shape[1], num_episodes
