"""Trials whose observations show the task in meta-training, for agents that learn from a privileged teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.evaluation import Reference, run_trials
from metarl.protocols import Agent, AgentConfig, TaskFamily, VectorEnv
from metarl.records import Record, Step, task_numbers
from metarl.rl.trials import Trial, TrialSource
from metarl.source import Draw, TrainConfig


class VisibleTaskEnv:
    """An environment whose observations end in the numbers of the row's task: [B, O + P]."""

    def __init__(self, env: VectorEnv, task_size: int) -> None:
        self._env = env
        self.num_rows, self.device, self.action_space = env.num_rows, env.device, env.action_space
        self._numbers = torch.zeros(env.num_rows, task_size, device=env.device)
        space, limit = env.observation_space, np.full(task_size, np.inf, dtype=np.float32)
        self.observation_space = spaces.Box(np.concatenate([space.low, -limit]), np.concatenate([space.high, limit]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, tasks: Record) -> Step:
        self._numbers = task_numbers(tasks, self._env.num_rows)
        return self._shown(self._env.reset(tasks))

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        return self._shown(self._env.step(action, active))

    def _shown(self, step: Step) -> Step:
        obs, next_obs = (torch.cat([each, self._numbers], 1) for each in (step.obs, step.next_obs))
        return replace(step, obs=obs, next_obs=next_obs)


class TaughtLearner(Agent[Any, Any], Protocol):
    """An agent with a teacher that sees the task; the teacher learns first."""

    teacher: Any  # an `Agent`, which acts on observations [B, O + P]

    @property
    def is_teaching(self) -> bool: ...  # whether the teacher already teaches, so that the agent itself acts and learns


class TaughtConfig(AgentConfig, Protocol):
    """The configuration of a `TaughtLearner`."""

    def make(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        *,
        num_iterations: int,
        generator: torch.Generator,
        task_size: int = 0,
    ) -> TaughtLearner:
        """A fresh agent; task_size: P, the number of parameters of a task."""
        ...


class VisibleTaskSource(TrialSource):
    """A source of trials with visible tasks, in which the teacher acts until it teaches, and then the learner.

    Evaluations hide the task; the teacher's returns on the same tasks are among their bounds, as "teacher". Iterations
    in which the teacher acts have no score: the best checkpoint is chosen by the learner's own returns.
    """

    def __init__(
        self,
        config: TaughtConfig,
        family: TaskFamily,
        train: TrainConfig,
        generators: Mapping[str, torch.Generator],
    ) -> None:
        super().__init__(config, family, train, generators)
        self._taught, self._task_size = config, self._size_of_tasks(family)

    def training_env(self, num_rows: int, generator: torch.Generator) -> VectorEnv:
        return VisibleTaskEnv(super().training_env(num_rows, generator), self._task_size)

    def _make_agent(self, num_iterations: int) -> TaughtLearner:
        return self._taught.make(
            self.family.observation_space,
            self.family.action_space,
            num_iterations=num_iterations,
            generator=self._generators["initialisation"],
            task_size=self._task_size,
        )

    def draw(self, learner: Any) -> Draw[Trial]:
        """A trial of whoever acts now, in fresh training tasks.

        Raises:
            FloatingPointError: when an observation or a reward is not finite; names the task and the step.
        """
        drawn = super().draw(learner if learner.is_teaching else learner.teacher)
        if not learner.is_teaching:
            del drawn.metrics[self.score_tag]
        return drawn

    def _references(self, learner: Any, family: TaskFamily, deterministic: bool) -> Mapping[str, Reference]:
        if self._size_of_tasks(family) != self._task_size:  # another family, whose tasks the teacher cannot read
            return {}
        return {"teacher": partial(self._teachers_returns, learner.teacher, family, deterministic)}

    def _teachers_returns(
        self,
        teacher: Agent[Any, Any],
        family: TaskFamily,
        deterministic: bool,
        tasks: Record,
        num_points: int,
        generator: torch.Generator,
    ) -> Tensor:
        env = VisibleTaskEnv(family.make_env(len(tasks), generator), self._task_size)
        return run_trials(env, teacher, tasks, num_points, generator=None if deterministic else generator).returns

    def _size_of_tasks(self, family: TaskFamily) -> int:
        device = self._generators["task"].device
        return task_numbers(family.sample(1, "train", torch.Generator(device)), 1).shape[1]
