"""Rows of Meta-World, or of its stand-in, and laws that hold for both."""

from __future__ import annotations

from typing import Any

import torch

from envs.external.metaworld.family import Metaworld, MetaworldEnv


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(family: Metaworld, num_rows: int = 4, split: Any = "train") -> tuple[MetaworldEnv, Any]:
    env, tasks = family.make_env(num_rows, generator()), family.sample(num_rows, split, generator())
    return env, tasks


def check_disjoint(family: Metaworld) -> None:
    """All training and test tasks, by environment and vector."""
    num_envs = {split: len(getattr(family.tasks, split)) for split in ("train", "test")}
    train = family.sample(50 * num_envs["train"], "train", generator())
    test = family.sample(50 * num_envs["test"], "test", generator(1))
    known, held_out = ({(env, *vector) for env, vector in pairs(tasks)} for tasks in (train, test))
    assert (len(known), len(held_out)) == (50 * num_envs["train"], 50 * num_envs["test"])
    assert not known & held_out


def pairs(tasks: Any) -> list[tuple[int, list[float]]]:
    return list(zip(tasks.env.tolist(), tasks.vector.tolist(), strict=True))
