"""What an agent with a reward model believes of its task, step by step.

Of a goal among cells, beside what a perfect observer would; of a velocity to move at, beside the one that is meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from metarl.protocols import TaskFamily
from metarl.records import Record, Trajectory
from metarl.rl.rollouts import collect

NUM_SAMPLES = 64  # of each belief
_NUM_VELOCITIES = 61  # that are compared, over the training range
_NUM_POSES = 4  # of the trials, in which they are compared
_CHUNK = 50  # beliefs that are decoded at once


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


# --- a velocity -----------------------------------------------------------------------------------------------------


@runtime_checkable
class VelocityFamily(Protocol):
    """A family whose tasks ask for velocities [N], `tasks.velocity`, in a range; the robot observes its own."""

    velocity: Any  # range of the velocities in training, with `low` and `high`

    @property
    def observed_velocity(self) -> int: ...  # the entry of observations that is the robot's own velocity


@dataclass(frozen=True)
class VelocityBeliefs(Record):
    """The velocity that an agent believes to be asked for, before each step of a trial and in each task."""

    mean: Tensor  # [T, N]
    deviation: Tensor  # [T, N], of samples of the belief
    own: Tensor  # [T, N], the robot's velocity
    asked: Tensor  # [N], what the task asks for
    episode_start: Tensor  # [T, N] bool
    step: Tensor  # [T], numbers of the steps in the trial

    def error_by_episode(self) -> list[float]:
        """The mean distance of the believed from the asked velocity when each episode but the last is over."""
        starts = self.episode_start.clone()
        starts[0] = False
        return (self.mean - self.asked).abs()[starts].view(-1, starts.shape[1]).mean(1).tolist()


def has_velocity_beliefs(family: Any, agent: Any) -> bool:
    """Whether `velocity_beliefs` can tell which velocity the agent believes to be asked for."""
    return isinstance(family, VelocityFamily) and isinstance(agent, RewardModel)


def velocity_beliefs(
    family: TaskFamily, agent: Any, tasks: Record, num_episodes: int, *, every: int, generator: torch.Generator
) -> VelocityBeliefs:
    """An agent's beliefs about the velocity that is asked for, in a trial of each task.

    A sample of a belief stands for the velocity of the training range at which it predicts the highest reward, in the
    mean over some poses of the trials. every: the number of steps between beliefs; the first ones of episodes are
    always among them. Episodes must not end early. All randomness comes from the generator.
    """
    assert isinstance(family, VelocityFamily)
    env = family.make_env(len(tasks), generator)  # type: ignore[attr-defined]
    trajectory = collect(env, agent, tasks, num_episodes, generator=generator)
    starts = trajectory.episode_start[:, 0].nonzero().flatten().tolist()
    chosen = sorted({*range(0, len(trajectory.obs), every), *starts})
    velocities = torch.linspace(family.velocity.low, family.velocity.high, _NUM_VELOCITIES, device=env.device)
    poses = [_at_velocities(obs, velocities, family.observed_velocity) for obs in _poses(trajectory, generator)]
    before, after = (torch.cat([pose[k] for pose in poses]) for k in range(2))
    still = torch.zeros(len(before), *trajectory.decision.action.shape[2:], device=env.device)
    beliefs = trajectory.decision.belief.map(lambda value: value[chosen].flatten(0, 1))  # [chosen N, Z]
    means, deviations = [], []
    for first in range(0, len(beliefs.mean), _CHUNK):
        some = beliefs.map(lambda value: value[first : first + _CHUNK])  # noqa: B023, called at once
        reward = agent.predict_reward(some, before, still, after, num_samples=NUM_SAMPLES, generator=generator)
        best = velocities[reward.unflatten(-1, (_NUM_POSES, _NUM_VELOCITIES)).mean(-2).argmax(-1)]  # [S, chunk]
        means.append(best.mean(0))
        deviations.append(best.std(0))
    mean, deviation = (torch.cat(parts).view(len(chosen), -1) for parts in (means, deviations))
    own, asked = trajectory.obs[chosen][..., family.observed_velocity], tasks.velocity  # type: ignore[attr-defined]
    return VelocityBeliefs(mean, deviation, own, asked, trajectory.episode_start[chosen], torch.tensor(chosen))


def _poses(trajectory: Trajectory[Any], generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Observations [O] before and after some steps."""
    before, after = trajectory.obs.flatten(0, 1), trajectory.next_obs.flatten(0, 1)
    steps = torch.randint(len(before), (_NUM_POSES,), generator=generator, device=generator.device).tolist()
    return [(before[step], after[step]) for step in steps]


def _at_velocities(pose: tuple[Tensor, Tensor], velocities: Tensor, entry: int) -> tuple[Tensor, Tensor]:
    """Two observations [O] with each of velocities [C] in an entry: [C, O] each."""
    found = []
    for obs in pose:
        moving = obs.repeat(len(velocities), 1)
        moving[:, entry] = velocities
        found.append(moving)
    return found[0], found[1]
