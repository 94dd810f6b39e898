"""Agents that act as another one does, and are watched, or read other things than happened."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from metarl.protocols import Agent, PosteriorSampling, ShowsAttention
from metarl.records import Decision, Step, Trajectory


class Delegate:
    """An agent that acts, observes and adapts as another one does; subclasses change one of these."""

    def __init__(self, agent: Agent[Any, Any]) -> None:
        self.agent = agent
        self.block, self.training_blocks = agent.block, agent.training_blocks
        self.act, self.prior = agent.act, agent.prior
        if isinstance(agent, PosteriorSampling):
            self.resample_latent = agent.resample_latent

    def observe(self, state: Any, action: Tensor | None, step: Step) -> Any:
        return self.agent.observe(state, action, step)

    def adapt(self, state: Any, trajectory: Trajectory[Any]) -> Any:
        return self.agent.adapt(state, trajectory)


class Watched(Delegate):
    """An agent whose state is kept: the last one, and a vector of each task where an episode begins.

    It has one row per task. Rows whose trial is over go on observing steps without reward or end, and so does the last
    state; their vectors are from before.
    """

    def __init__(self, agent: Any, num_tasks: int, num_episodes: int) -> None:
        super().__init__(agent)
        self.state: Any = None
        self._count = torch.zeros(num_tasks, dtype=torch.int64)  # of the vectors of each task
        self._num_episodes = num_episodes
        self._vectors: Tensor | None = None
        self._attention: dict[int, list[Tensor]] = {}  # to each step, by the number of episodes before

    def observe(self, state: Any, action: Tensor | None, step: Step) -> Any:
        before, self.state = state, self.agent.observe(state, action, step)
        begins = torch.ones_like(step.episode_end) if action is None else step.episode_end
        rows = begins.nonzero().flatten().cpu()
        if len(rows):
            vectors = self.agent.state_vectors(self.state)  # pyright: ignore[reportAttributeAccessIssue], ShowsState
            if self._vectors is None:
                self._vectors = torch.zeros(self._num_episodes + 1, *vectors.shape)
            self._vectors[self._count[rows], rows] = vectors[rows].cpu()
            if isinstance(self.agent, ShowsAttention):
                self._look_back(self.agent.attention(before, action, step), rows)
            self._count[rows] += 1
        return self.state

    def _look_back(self, weights: Tensor | None, rows: Tensor) -> None:
        """Add the attention [B, steps] of these rows to the means by the number of episodes before."""
        if weights is not None:
            for count in self._count[rows].unique().tolist():
                self._attention.setdefault(count, []).append(weights.cpu()[rows[self._count[rows] == count]])

    @property
    def attention(self) -> list[list[float]] | None:
        """The mean attention to each step so far as each episode begins, and after the last; None without attention.

        Rows whose episodes begin at different steps are aligned at the first step of the trial.
        """
        if not self._attention:
            return None
        found = []
        for _, parts in sorted(self._attention.items()):
            longest = max(part.shape[1] for part in parts)
            padded = [torch.nn.functional.pad(part, (0, longest - part.shape[1])) for part in parts]
            found.append(torch.cat(padded).mean(0).tolist())
        return found

    @property
    def vectors(self) -> Tensor:
        """The state as each episode begins, and after the last: [num_episodes + 1, N, D]."""
        assert self._vectors is not None
        return self._vectors


class Misled(Delegate):
    """An agent whose adaptation reads the observations, rewards or actions of another task; it acts on its own.

    What is read of task i is that of task `order[i]`, so each signal looks as it always does and says nothing.
    """

    def __init__(self, agent: Any, signal: str, order: Tensor) -> None:
        super().__init__(agent)
        self._signal, self._order = signal, order

    def observe(self, state: Any, action: Tensor | None, step: Step) -> Any:
        rows = self._rows(len(step.reward))
        if self._signal == "rewards":
            step = replace(step, reward=step.reward[rows])
        elif self._signal == "observations":
            step = replace(step, obs=step.obs[rows], next_obs=step.next_obs[rows])
        elif action is not None:
            action = action[rows]
        return self.agent.observe(state, action, step)

    def adapt(self, state: Any, trajectory: Trajectory[Any]) -> Any:
        rows = self._rows(trajectory.reward.shape[1])
        if self._signal == "rewards":
            trajectory = replace(trajectory, reward=trajectory.reward[:, rows])
        elif self._signal == "observations":
            trajectory = replace(trajectory, obs=trajectory.obs[:, rows], next_obs=trajectory.next_obs[:, rows])
        else:
            decision: Decision = trajectory.decision.map(lambda value: value[:, rows])
            trajectory = replace(trajectory, decision=decision)
        return self.agent.adapt(state, trajectory)

    def _rows(self, num_rows: int) -> Tensor:
        """The rows of the other tasks, copy by copy: [B]."""
        copies = num_rows // len(self._order)
        return (self._order[:, None] * copies + torch.arange(copies, device=self._order.device)).flatten()
