"""Rows of a vectorised environment: assigning tasks to them and selecting among them."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metarl.protocols import VectorEnv
from metarl.records import Record

T = TypeVar("T", bound=Record)


def one_task_per_row(tasks: T, num_rows: int) -> T:
    """Tasks with leading axis N as tasks with leading axis `num_rows`, the copies of one task contiguous.

    Raises:
        ValueError: when N does not divide the number of rows.
    """
    num_tasks = len(tasks)
    if num_tasks == 0 or num_rows % num_tasks:
        raise ValueError(f"there are {num_tasks} tasks; their number must divide the {num_rows} environment rows")
    return tasks.repeat_interleave(num_rows // num_tasks)


def replace_tasks(tasks: T, others: T, rows: Tensor) -> T:
    """Tasks [B], replaced by those of `others` [B] where `rows` [B] (bool) is true."""
    return pytree.tree_map(
        lambda task, other: where_row(rows, other, task) if isinstance(task, Tensor) else task, tasks, others
    )


def where_row(condition: Tensor, chosen: Tensor, otherwise: Tensor) -> Tensor:
    """`torch.where` with a condition [B] on tensors [B, ...]."""
    if chosen.ndim > 1:
        condition = condition.view(-1, *(1,) * (chosen.ndim - 1))
    return torch.where(condition, chosen, otherwise)


def close(env: VectorEnv) -> None:
    """Release an environment's resources (e.g. processes), if it has a method for that."""
    if hasattr(env, "close"):
        env.close()  # pyright: ignore[reportAttributeAccessIssue]
