"""Privileged observations: what a critic sees in meta-training, and no policy ever does.

A critic learns faster if it sees what the return depends on, such as the task's parameters or the true velocity of a
robot. It is not needed once the policy has learned, so neither evaluations nor exports know of it. Steps of an
environment hold such numbers as `Step.privileged`.

Pinto et al. Asymmetric actor critic for image-based robot learning (2018).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from metarl.protocols import TaskFamily, VectorEnv
from metarl.records import Record, Step, task_numbers

CriticSees = Literal["nothing", "privileged", "task"]


@runtime_checkable
class PrivilegedFamily(Protocol):
    """An optional attribute of a `TaskFamily` whose environments give privileged observations, `Step.privileged`."""

    @property
    def privileged_size(self) -> int: ...  # P; zero: there are none


class ShownTaskEnv:
    """An environment whose privileged observations are the numbers of the row's task."""

    def __init__(self, env: VectorEnv) -> None:
        self._env = env
        self.num_rows, self.device = env.num_rows, env.device
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self._numbers = torch.empty(env.num_rows, 0, device=env.device)

    def __getattr__(self, name: str) -> Any:
        if name == "carried":  # which would be set here, and not there
            raise AttributeError(name)
        return getattr(self._env, name)

    def reset(self, tasks: Record) -> Step:
        self._numbers = task_numbers(tasks, self._env.num_rows).to(self.device)
        return replace(self._env.reset(tasks), privileged=self._numbers)

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        return replace(self._env.step(action, active), privileged=self._numbers)


def size_for(sees: CriticSees, family: TaskFamily, device: torch.device) -> int:
    """How many numbers a critic sees besides what the policy reads, in a family.

    Raises:
        ValueError: when it shall see privileged observations of a family that has none.
    """
    if sees == "nothing":
        return 0
    if sees == "task":
        return task_numbers(family.sample(1, "train", torch.Generator(device)), 1).shape[1]
    size = family.privileged_size if isinstance(family, PrivilegedFamily) else 0
    if not size:
        raise ValueError(f"critic_sees is 'privileged', but {family.name} has no such observations; use 'task'")
    return size


def shown(sees: CriticSees, env: VectorEnv) -> VectorEnv:
    """The training environment as a critic needs it."""
    return ShownTaskEnv(env) if sees == "task" else env
