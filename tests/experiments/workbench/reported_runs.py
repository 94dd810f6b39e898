"""Finished runs for the tests of reports, written as a training writes them, without one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from envs.torch_families.navigation import PointTasks
from metarl.evaluation import RETURN, Evaluation
from metarl.run.directory import Run

NUM_TASKS = 60
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
MP4 = b"\x00\x00\x00\x20ftypisom" + bytes(100)


def evaluation(split: str = "test", *, better: float = 0.0, seed: int = 0, agent: str = "rl2") -> Evaluation:
    """Four episodes on tasks with a goal in the plane; the score falls with its first coordinate."""
    generator = torch.Generator().manual_seed(seed + len(split))
    goal = torch.rand(NUM_TASKS, 2, generator=generator)
    scores = better - 5 * goal[:, 0] + torch.tensor([[0.0], [2.0], [3.0], [3.5]])
    return Evaluation.of(
        scores + torch.randn(scores.shape, generator=generator) / 10,
        family="point_navigation",
        agent=agent,
        split=split,
        measure=RETURN,
        tasks=PointTasks(goal, torch.zeros(NUM_TASKS, 2)),
        bounds={"oracle": torch.full(scores.shape, 4.0) - goal[:, 1], "random": [-6.0] * 4},
        trained_points=3,
        tasks_hash=f"hash of {split}",
    )


def make_run(
    path: str,
    *,
    seed: int = 0,
    better: float = 0.0,
    splits: tuple[str, ...] = ("test", "train", "ood"),
    files: Mapping[str, bytes] | None = None,
    config: Mapping[str, Any] | None = None,
    agent: str = "rl2",
) -> Path:
    """A run of 20 iterations with its evaluations, and with other files by their name in it."""
    settings = {
        "experiment": "point_navigation/rl2",
        "family": {"class": "envs.torch_families.navigation:PointNavigation", "horizon": 20},
        "agent": {"class": "agents.rl2:RL2Config", "hidden_size": 32, "memory": {"cell": "gru", "span": None}},
        "train": {"num_iterations": 20, "num_tasks": 8, "eval_every": 5},
        "seed": seed,
        "device": "cpu",
        "expected": {"source": "our own aim", "at_least": 100.0, "at_most": None, "point": 4},
        **(config or {}),
    }
    run = Run.create_at(path, settings, ["metarl", "train", "point_navigation/rl2", "--seed", str(seed)])
    rows = [row(number, better) for number in range(1, 21)]
    (run.path / "progress.json").write_text("".join(f"{json.dumps(one)}\n" for one in rows))
    for split in splits:
        name = None if split == "test" else f"evaluation_{split}_{NUM_TASKS}x4_i20_s0"
        subject = {"checkpoint": "latest", "iteration": 20, "evaluation_seed": 0, "code": "as trained"}
        run.save_evaluation(evaluation(split, better=better, seed=seed, agent=agent), subject, name)
    for name, content in (files or {}).items():
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_bytes(content)
    return run.path


def row(number: int, better: float) -> dict[str, float]:
    """A row of the log."""
    logged = {f"meta_train/return/ep_{episode}": number / 20 + episode for episode in range(1, 5)}
    logged |= {"time/collect_share": 0.25, "time/time_elapsed": 4.0 * number, "time/iterations": number}
    if number % 5 == 0:
        logged |= {
            "meta_test/return/ep_1": 0.5 + better,
            "meta_test/return/ep_4": 2.5 + better,
            "meta_test/iqm": better,
        }
    return {**logged, "time/total_timesteps": 100 * number, "rollout/num_diverged": float(number == 7) * 3}
