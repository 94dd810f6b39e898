"""Multi-armed bandits: one episode is one pull, a trial is `num_pulls` of them.

Bernoulli: Duan et al. 2016, "RL²: Fast Reinforcement Learning via Slow Reinforcement Learning", section 3.1.
Gaussian: the k-armed testbed of Sutton and Barto, "Reinforcement Learning", section 2.3, with the same episodes.

Deviations:
1. The papers define no out-of-distribution tasks. Ours: Bernoulli arms that are all poor, p ~ U[0, 0.2]; Gaussian
   arms whose means spread three times as far. Both lie within the support of the training distribution, where no
   test of membership exists, so these families give none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn import functional

from envs.splits import check_split
from envs.torch_families.labelling import labelled_transitions
from envs.torch_families.torch_env import TorchEnv, unit_box
from metarl.checks import at_least, positive
from metarl.protocols import Split
from metarl.records import LabelledTransitions, Record

OOD_HIGHEST_PROBABILITY = 0.2
OOD_SPREAD = 3.0


@dataclass(frozen=True)
class BanditTasks(Record):
    """The bandits' parameters."""

    mean: Tensor  # [N, arms] float32: expected reward of each arm; Bernoulli: its success probability


@dataclass(frozen=True)
class _Bandit:
    """The common part of the two families: no state, a constant observation, and an end after each pull."""

    num_arms: int = 5  # number of arms
    num_pulls: int = 10  # number of pulls per trial

    def __post_init__(self) -> None:
        at_least(self, 2, "num_arms")
        at_least(self, 1, "num_pulls")

    @property
    def horizon(self) -> int:
        return 1

    @property
    def num_episodes(self) -> int:
        return self.num_pulls

    @property
    def observation_space(self) -> spaces.Box:
        return unit_box(1)

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(self.num_arms)

    def initial_state(self, tasks: BanditTasks, generator: torch.Generator) -> Tensor:
        return tasks.mean.new_zeros(tasks.mean.shape[0], 1)  # [B, 1]

    def transition(self, tasks: BanditTasks, state: Tensor, action: Tensor, generator: torch.Generator) -> Tensor:
        return state

    def terminated(self, tasks: BanditTasks, next_state: Tensor) -> Tensor:
        return torch.ones(next_state.shape[0], dtype=torch.bool, device=next_state.device)

    def observation(self, tasks: BanditTasks, state: Tensor) -> Tensor:
        return state.clone()

    def uniform_state(self, tasks: BanditTasks, generator: torch.Generator) -> Tensor:
        return self.initial_state(tasks, generator)

    def optimal_policy(self, tasks: BanditTasks, state: Tensor) -> Tensor:
        """All probability on the arm with the largest expected reward: [B, arms]."""
        return functional.one_hot(tasks.mean.argmax(-1), self.num_arms).float()

    def optimal_actions(self, tasks: BanditTasks, obs: Tensor) -> Tensor:
        """All probability on the arm with the largest expected reward: [B, arms]."""
        return self.optimal_policy(tasks, obs)

    def bounds(self, tasks: BanditTasks, num_episodes: int) -> dict[str, Tensor]:
        """By pull and task: "oracle" always takes the best arm, "random" any."""
        known = {"oracle": tasks.mean.max(dim=1).values, "random": tasks.mean.mean(dim=1)}
        return {name: returns.expand(num_episodes, -1) for name, returns in known.items()}


@dataclass(frozen=True)
class BernoulliBandit(_Bandit):
    """Arms that pay 1 with probability p ~ U[0, 1] and 0 otherwise."""

    name = "bernoulli_bandit"

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> BanditTasks:
        check_split(self.name, split)
        mean = torch.rand(num_tasks, self.num_arms, generator=generator, device=generator.device)
        return BanditTasks(mean * OOD_HIGHEST_PROBABILITY if split == "ood" else mean)

    def labelled_transitions(
        self, tasks: BanditTasks, num_steps: int, generator: torch.Generator
    ) -> LabelledTransitions:
        """Uniform pulls of each bandit, and its best arm; see `metarl.protocols.LabelsActions`."""
        return labelled_transitions(self, tasks, num_steps, generator)

    def make_env(self, num_rows: int, generator: torch.Generator) -> TorchEnv[BanditTasks]:
        return TorchEnv(self, num_rows, generator)

    def reward(
        self, tasks: BanditTasks, state: Tensor, action: Tensor, next_state: Tensor, generator: torch.Generator
    ) -> Tensor:
        mean = tasks.mean.gather(1, action.unsqueeze(1)).squeeze(1)  # [B]
        return (torch.rand(mean.shape, generator=generator, device=mean.device) < mean).float()


@dataclass(frozen=True)
class GaussianBandit(_Bandit):
    """Arms that pay N(mean, reward_std²) with mean ~ N(0, 1)."""

    reward_std: float = 1.0  # standard deviation of the reward of every arm

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "reward_std")

    name = "gaussian_bandit"

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> BanditTasks:
        check_split(self.name, split)
        mean = torch.randn(num_tasks, self.num_arms, generator=generator, device=generator.device)
        return BanditTasks(mean * OOD_SPREAD if split == "ood" else mean)

    def labelled_transitions(
        self, tasks: BanditTasks, num_steps: int, generator: torch.Generator
    ) -> LabelledTransitions:
        """Uniform pulls of each bandit, and its best arm; see `metarl.protocols.LabelsActions`."""
        return labelled_transitions(self, tasks, num_steps, generator)

    def make_env(self, num_rows: int, generator: torch.Generator) -> TorchEnv[BanditTasks]:
        return TorchEnv(self, num_rows, generator)

    def reward(
        self, tasks: BanditTasks, state: Tensor, action: Tensor, next_state: Tensor, generator: torch.Generator
    ) -> Tensor:
        mean = tasks.mean.gather(1, action.unsqueeze(1)).squeeze(1)  # [B]
        return mean + self.reward_std * torch.randn(mean.shape, generator=generator, device=mean.device)
