"""Learning histories: all that an agent did in a task, from its first step on; and the source that learns from them.

Laskin et al. In-context reinforcement learning with algorithm distillation (2022), for histories as training data.
Zisman et al. Emergence of in-context reinforcement learning from noise distillation (2023), for annealed experts.

Histories come from files (metarl/rl/history_files.py), or from an expert that knows each task's optimal actions and
acts at random at first: with a probability that falls from one to zero over the history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.nets.distributions import Categorical
from metarl.parallel import Share, current
from metarl.protocols import Agent, AgentConfig, KnowsActions, TaskFamily
from metarl.records import Decision, Record, Step, Trajectory
from metarl.rl.history_files import read_histories
from metarl.rl.rollouts import collect
from metarl.rl.trials import ActingSource, check_trajectory_memory
from metarl.source import Draw, TrainConfig
from metarl.task_samplers.sampler import UniformConfig


@dataclass(frozen=True)
class Histories(Record):
    """One history per row; its steps come first, and zeros fill the rest."""

    obs: Tensor  # [N, L, O]
    action: Tensor  # [N, L] int64 or [N, L, A]
    reward: Tensor  # [N, L]
    episode_end: Tensor  # [N, L] bool
    length: Tensor  # [N] int64, number of steps

    @classmethod
    def of(cls, trajectory: Trajectory[Any]) -> Histories:
        """Those of a trajectory's rows."""
        fields = (trajectory.obs, trajectory.decision.action, trajectory.reward, trajectory.episode_end)
        obs, action, reward, episode_end = (value.transpose(0, 1).contiguous() for value in fields)
        return cls(obs, action, reward, episode_end, trajectory.valid.sum(0))

    def windows(self, count: int, num_steps: int, generator: torch.Generator) -> HistoryWindows:
        """Parts of `num_steps` consecutive steps of histories, both drawn uniformly: [count, num_steps, ...].

        Raises:
            ValueError: when a history is shorter.
        """
        if int(self.length.min()) < num_steps:
            raise ValueError(f"context is {num_steps}; a history has only {int(self.length.min())} steps")
        device = generator.device
        row = torch.randint(len(self), (count, 1), generator=generator, device=device)
        uniform = torch.rand((count, 1), generator=generator, device=device, dtype=torch.float64)
        first = (uniform * (self.length[row] - num_steps + 1)).long()
        steps = first + torch.arange(num_steps, device=device)
        before = (steps - 1).clamp(min=0)
        return HistoryWindows(
            obs=self.obs[row, steps],
            action=self.action[row, steps],
            last_action=self.action[row, before],
            last_reward=self.reward[row, before],
            last_end=self.episode_end[row, before],
            is_first=steps == 0,
        )


@dataclass(frozen=True)
class HistoryWindows(Record):
    """Consecutive steps of histories: what was done at each, given what the step before it had led to."""

    obs: Tensor  # [M, C, O], the observation acted on
    action: Tensor  # [M, C] int64 or [M, C, A]
    last_action: Tensor  # as `action`, of the step before
    last_reward: Tensor  # [M, C]
    last_end: Tensor  # [M, C] bool, whether the step before ended an episode
    is_first: Tensor  # [M, C] bool, whether there is no step before


class AnnealedExpert:
    """An agent that knows the tasks, and acts at random with a probability that falls from one to zero.

    num_steps: the length of the history, at whose last step it acts optimally.
    """

    block: int | None = None
    training_blocks: int | None = None

    def __init__(self, family: KnowsActions, tasks: Any, num_steps: int) -> None:
        self.family, self.tasks, self.num_steps = family, tasks, num_steps

    def prior(self, num_tasks: int, copies: int = 1) -> int:
        """The number of steps so far."""
        return 0

    def observe(self, state: int, action: Tensor | None, step: Step) -> int:
        return state if action is None else state + 1

    def act(self, state: int, obs: Tensor, generator: torch.Generator | None) -> Decision:
        known = self.family.optimal_actions(self.tasks, obs)
        noise = 1 - min(state / max(self.num_steps - 1, 1), 1.0)
        distribution = Categorical(((1 - noise) * known + noise / known.shape[-1]).log())
        return Decision(distribution.mode if generator is None else distribution.sample(generator))

    def adapt(self, state: int, trajectory: Trajectory[Decision]) -> int:
        return state


class HistoryConfig(AgentConfig, Protocol):
    """The configuration of an agent that learns from histories."""

    @property
    def histories(self) -> str | None: ...  # folder of histories; None: those of annealed experts
    @property
    def num_histories(self) -> int: ...  # of annealed experts
    @property
    def history_episodes(self) -> int: ...  # episodes per history of an annealed expert
    @property
    def context(self) -> int: ...  # steps per window


class HistorySource(ActingSource):
    """Draws parts of learning histories in training tasks; an evaluation runs trials like any other agent's.

    Raises:
        ValueError: when there are no histories in these tasks, or tasks are to be chosen by returns.
    """

    unit = "steps of histories"
    unit_rate = "steps/s"
    score_tag = "train/log_likelihood"

    def __init__(
        self,
        config: HistoryConfig,
        family: TaskFamily,
        train: TrainConfig,
        generators: Mapping[str, torch.Generator],
    ) -> None:
        super().__init__(config, family, train, generators)
        if config.histories is None and not isinstance(family, KnowsActions):
            raise ValueError(
                f"histories is None; must be a folder written by `metarl histories`, as {family.name} knows no expert"
            )
        if not isinstance(train.sampler, UniformConfig):
            raise ValueError(f"sampler is {train.sampler!r}; must be uniform, since histories are there already")
        self._histories = config

    def make_learner(self, num_iterations: int) -> Agent[Any, Any]:
        """A fresh agent, and the histories.

        Raises:
            ValueError: when a history is shorter than a window.
            UserError: when files do not hold histories in training tasks of this family.
        """
        self.histories = self._read() if self._histories.histories is not None else self._annealed()
        shortest = int(self.histories.length.min())
        if shortest < self._histories.context:
            raise ValueError(f"context is {self._histories.context}; must be at most {shortest}, the shortest history")
        return self._make_agent(num_iterations)

    def draw(self, learner: Agent[Any, Any]) -> Draw[HistoryWindows]:
        """Parts of histories. Of several processes, each has its share of them."""
        count = self.num_tasks * self.copies
        windows = self.histories.windows(count, self._histories.context, self._generators["task"])
        share = current() or Share(self.num_tasks)
        return Draw(share.own(windows), windows.is_first.numel(), {})

    def _read(self) -> Histories:
        assert self._histories.histories is not None
        fields = read_histories(Path(self._histories.histories), self.family)
        return Histories(**fields).to(self._generators["task"].device)

    def _annealed(self) -> Histories:
        config, family, generators = self._histories, self.family, self._generators
        assert isinstance(family, KnowsActions)
        assert isinstance(family.action_space, spaces.Discrete)
        num_steps = config.history_episodes * family.horizon
        check_trajectory_memory(family, config.num_histories, num_steps)
        tasks = family.sample(config.num_histories, "train", generators["task"])
        env = family.make_env(config.num_histories, generators["env"])
        expert: Any = AnnealedExpert(family, tasks, num_steps)  # it learns nothing
        episodes = config.history_episodes
        return Histories.of(collect(env, expert, tasks, episodes, generator=generators["policy"]))
