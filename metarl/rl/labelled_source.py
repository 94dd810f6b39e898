"""A source of labelled transitions: agents that learn in context from optimal actions collect no trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from metarl.parallel import Share, current
from metarl.protocols import Agent, AgentConfig, LabelsActions, LabelsWalks, TaskFamily
from metarl.records import LabelledTransitions, Record, cat
from metarl.rl.trials import ActingSource
from metarl.source import Draw, TrainConfig
from metarl.task_samplers.sampler import UniformConfig


class LabelledSource(ActingSource):
    """Draws transitions in fresh training tasks; an evaluation runs trials like any other agent's.

    num_steps: transitions per task. walks: the fraction of the tasks whose transitions are steps of a walk.

    Raises:
        ValueError: when the family knows no optimal actions or walks, when no task would have one, or when tasks are
            to be chosen by returns, which there are not.
    """

    unit = "transitions"
    unit_rate = "transitions/s"
    score_tag = "train/log_likelihood"

    def __init__(
        self,
        config: AgentConfig,
        family: TaskFamily,
        train: TrainConfig,
        generators: Mapping[str, torch.Generator],
        *,
        num_steps: int,
        walks: float = 0.0,
    ) -> None:
        super().__init__(config, family, train, generators)
        if not isinstance(family, LabelsActions):
            raise ValueError(f"family is {family.name}; must be one whose optimal actions are known, e.g. dark_room")
        if not isinstance(train.sampler, UniformConfig):
            raise ValueError(f"sampler is {train.sampler!r}; must be uniform, since these tasks have no returns")
        if walks and not isinstance(family, LabelsWalks):
            raise ValueError(f"walks is {walks}; must be 0 on {family.name}, which has no `labelled_walks`")
        self._labels, self._num_steps = family, num_steps
        num_drawn = self.num_tasks * self.copies
        self._num_walks = round(walks * num_drawn)
        if walks and not self._num_walks:
            raise ValueError(f"walks is {walks}; must be 0 or large enough for one of the {num_drawn} tasks")

    def make_learner(self, num_iterations: int) -> Agent[Any, Any]:
        """A fresh agent."""
        return self._make_agent(num_iterations)

    def draw(self, learner: Agent[Any, Any]) -> Draw[LabelledTransitions]:
        """Transitions in fresh training tasks. Of several processes, each has its share of the tasks."""
        tasks = self._fresh_tasks(self.num_tasks, self._generators["task"]).repeat_interleave(self.copies)
        transitions = self._transitions(tasks, self._num_walks)
        share = current() or Share(self.num_tasks)
        return Draw(share.own(transitions), transitions.action.numel(), {})

    def _transitions(self, tasks: Record, num_walks: int) -> LabelledTransitions:
        """Transitions in these tasks; those of the first `num_walks` are steps of walks."""
        draws = (self._num_steps, self._generators["env"])
        parts = []
        if num_walks:
            assert isinstance(self._labels, LabelsWalks)
            parts.append(self._labels.labelled_walks(tasks[:num_walks], *draws))
        if num_walks < len(tasks):
            parts.append(self._labels.labelled_transitions(tasks[num_walks:], *draws))
        return cat(parts)
