"""What an agent with a reward model believes of a hidden goal, step by step, and what a perfect observer would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from metarl.protocols import TaskFamily
from metarl.records import Record
from metarl.rl.rollouts import collect

NUM_SAMPLES = 64  # of each belief


@runtime_checkable
class GoalFamily(Protocol):
    """A family with a goal among finitely many cells, whose exact posterior is known."""

    def cell_observations(self, device: torch.device | str = "cpu") -> Tensor:
        """The observation of each cell [C, O]."""
        ...

    def goal_posterior(self, next_obs: Tensor, reward: Tensor) -> Tensor:
        """The exact probability of each cell after each prefix of trials [T, B]: [T + 1, B, C]."""
        ...


@runtime_checkable
class RewardModel(Protocol):
    """An optional method of an agent whose decisions carry a belief from which rewards can be predicted."""

    def predict_reward(
        self,
        belief: Any,
        obs: Tensor,
        action: Tensor,
        next_obs: Tensor,
        *,
        num_samples: int,
        generator: torch.Generator,
    ) -> Tensor:
        """For transitions [K] under samples of beliefs [B]: [num_samples, B, K]."""
        ...


@dataclass(frozen=True)
class GoalBeliefs(Record):
    """Probabilities of each cell being the goal, before each step of a trial and in each task."""

    believed: Tensor  # [T, N, C]
    exact: Tensor  # [T, N, C]
    episode_start: Tensor  # [T, N] bool

    def divergence(self) -> Tensor:
        """KL(exact || believed), in nats: [T, N]."""
        ratio = self.exact.clamp(min=1e-30).log() - self.believed.clamp(min=1e-30).log()
        return torch.where(self.exact > 0, self.exact * ratio, 0.0).sum(-1)

    def divergence_by_episode(self) -> list[float]:
        """The mean divergence over tasks when each episode but the last is over."""
        starts = self.episode_start.clone()
        starts[0] = False
        return self.divergence()[starts].view(-1, starts.shape[1]).mean(1).tolist()


def has_goal_beliefs(family: Any, agent: Any) -> bool:
    """Whether `goal_beliefs` can compare the agent's belief with the family's exact posterior."""
    return isinstance(family, GoalFamily) and isinstance(agent, RewardModel)


def goal_beliefs(
    family: TaskFamily, agent: Any, tasks: Record, num_episodes: int, *, generator: torch.Generator
) -> GoalBeliefs:
    """An agent's beliefs about the goal and the exact ones, given the same transitions, in a trial of each task.

    The agent's are its predicted rewards where the goal can be, normalised to sum to one over these cells. Episodes
    must not end early. All randomness comes from the generator.
    """
    assert isinstance(family, GoalFamily)
    env = family.make_env(len(tasks), generator)  # type: ignore[attr-defined]
    trajectory = collect(env, agent, tasks, num_episodes, generator=generator)
    exact = family.goal_posterior(trajectory.next_obs, trajectory.reward)
    cells = family.cell_observations(env.device)
    belief = trajectory.decision.belief.map(lambda value: value.flatten(0, 1))  # [T * N, Z]
    stay = torch.zeros(len(cells), dtype=torch.int64, device=env.device)
    predicted = agent.predict_reward(belief, cells, stay, cells, num_samples=NUM_SAMPLES, generator=generator)
    chance = predicted.mean(0).view(*exact[:-1].shape)
    weight = torch.where(exact[0] > 0, chance.clamp(min=0), 0.0)
    believed = weight / weight.sum(-1, keepdim=True).clamp(min=1e-30)
    return GoalBeliefs(believed, exact[:-1], trajectory.episode_start)
