"""A source of labelled transitions: agents that learn in context from optimal actions collect no trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from metarl.parallel import Share, current
from metarl.protocols import Agent, AgentConfig, LabelsActions, LabelsWalks, TaskFamily
from metarl.records import LabelledTransitions, Record, cat
from metarl.rl.own_trials import OwnTrials, SolvedFamily
from metarl.rl.trials import ActingSource
from metarl.source import Draw, TrainConfig
from metarl.task_samplers.sampler import UniformConfig


class LabelledSource(ActingSource):
    """Draws transitions in fresh training tasks; an evaluation runs trials like any other agent's.

    num_steps: transitions per task. walks: the fraction of the tasks whose transitions are steps of a walk. own: the
    fraction of the batch that are parts of the agent's own trials, which it runs in as many fresh training tasks as a
    batch has every `own_every` iterations; the last `own_kept` batches of them are kept.

    Raises:
        ValueError: when the family knows no optimal actions or walks, when no task would have one, when a part would be
            longer than a trial, or when tasks are to be chosen by returns, which there are not.
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
        own: float = 0.0,
        own_every: int = 1,
        own_kept: int = 1,
    ) -> None:
        super().__init__(config, family, train, generators)
        if not isinstance(family, LabelsActions):
            raise ValueError(f"family is {family.name}; must be one whose optimal actions are known, e.g. dark_room")
        if not isinstance(train.sampler, UniformConfig):
            raise ValueError(f"sampler is {train.sampler!r}; must be uniform, since these tasks have no returns")
        if walks and not isinstance(family, LabelsWalks):
            raise ValueError(f"walks is {walks}; must be 0 on {family.name}, which has no `labelled_walks`")
        self._labels, self._num_steps = family, num_steps
        self._num_walks, self._num_own = self._number(walks, "walks"), self._number(own, "own")
        if self._num_walks + self._num_own > self.num_tasks * self.copies:
            raise ValueError(f"walks is {walks} and own {own}; their sum must be at most 1")
        self._own, self._own_every, self._num_draws = None, own_every, 0
        if self._num_own:
            self._own = OwnTrials(self._solved(num_steps), own_kept, generators)

    def _number(self, fraction: float, field: str) -> int:
        """How many of the batch's tasks are the fraction that a field asks for."""
        num_drawn = self.num_tasks * self.copies
        number = round(fraction * num_drawn)
        if fraction and not number:
            raise ValueError(f"{field} is {fraction}; must be 0 or large enough for one of the {num_drawn} tasks")
        return number

    def _solved(self, num_steps: int) -> SolvedFamily:
        """The family, once it is one whose own trials can be labelled and are long enough."""
        family, longest = self.family, self.family.num_episodes * self.family.horizon
        if not isinstance(family, SolvedFamily):
            raise ValueError(f"own must be 0 on {family.name}, which has no `optimal_actions`")
        if num_steps > longest:
            raise ValueError(
                f"context is {num_steps}; must be at most {longest}, the steps of a trial, where own is not 0"
            )
        return family

    def make_learner(self, num_iterations: int) -> Agent[Any, Any]:
        """A fresh agent."""
        return self._make_agent(num_iterations)

    def draw(self, learner: Agent[Any, Any]) -> Draw[LabelledTransitions]:
        """Transitions in fresh training tasks. Of several processes, each has its share of the tasks."""
        share, metrics = current() or Share(self.num_tasks), {}
        if self._own is not None and self._num_draws % self._own_every == 0:
            returns = self._own.run(learner, self._fresh_tasks(self.num_tasks, self._generators["task"]), share)
            by_episode = enumerate(returns.mean(1).tolist(), start=1)
            metrics = {f"meta_train/return/ep_{episode}": value for episode, value in by_episode}
        self._num_draws += 1
        tasks = self._fresh_tasks(self.num_tasks, self._generators["task"]).repeat_interleave(self.copies)
        parts = self._drawn(tasks[self._num_own :])
        if self._own is not None:
            parts.append(self._own.parts(self._num_own, self._num_steps, self._generators["env"]))
        transitions = cat(parts)
        return Draw(share.own(transitions), transitions.action.numel(), metrics)

    def _drawn(self, tasks: Record) -> list[LabelledTransitions]:
        """Transitions in these tasks, those of the first `_num_walks` as steps of walks; none is of own trials."""
        draws, parts = (self._num_steps, self._generators["env"]), []
        if self._num_walks:
            assert isinstance(self._labels, LabelsWalks)
            parts.append(self._labels.labelled_walks(tasks[: self._num_walks], *draws))
        if self._num_walks < len(tasks):
            parts.append(self._labels.labelled_transitions(tasks[self._num_walks :], *draws))
        return parts

    def state_dict(self, *, to_train: bool = True) -> dict[str, Any]:
        state = super().state_dict(to_train=to_train)
        if self._own is None or not to_train:
            return state
        return {**state, "own_trials": self._own.state_dict(), "num_draws": self._num_draws}

    def load_state_dict(self, state: Mapping[str, Any], *, to_train: bool = True) -> None:
        super().load_state_dict(state, to_train=to_train)
        if self._own is not None and to_train:
            self._own.load_state_dict(state["own_trials"])
            self._num_draws = state["num_draws"]
