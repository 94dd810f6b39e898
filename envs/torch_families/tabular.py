"""Random tabular MDPs: Duan et al. 2016, "RL²", section 3.2 (after Osband and Van Roy).

Transitions are flat Dirichlet, the mean reward of each (state, action) is N(1, 1) and is observed with unit noise;
every episode starts in state 0 and lasts `horizon` steps.

Deviations:
1. The paper defines no out-of-distribution tasks. Ours: transitions from a Dirichlet of concentration 0.1, hence nearly
   deterministic. They lie within the support of the training distribution, so the family gives no test of membership.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from gymnasium import spaces
from torch import Tensor

from envs.splits import check_split
from envs.torch_families.torch_env import TorchEnv, one_hot_rows, unit_box
from metarl.checks import at_least
from metarl.protocols import Split
from metarl.records import Record

OOD_CONCENTRATION = 0.1
REWARD_MEAN = 1.0


@dataclass(frozen=True)
class TabularTasks(Record):
    """The MDPs' parameters."""

    transition: Tensor  # [N, S, A, S] float32: probability of the next state
    reward_mean: Tensor  # [N, S, A] float32


@dataclass(frozen=True)
class TabularMDP:
    """Random MDPs with one-hot observations."""

    num_states: int = 10  # number of states
    num_actions: int = 5  # number of actions
    horizon: int = 10  # number of steps per episode
    num_episodes: int = 10  # number of episodes per trial

    def __post_init__(self) -> None:
        at_least(self, 2, "num_states", "num_actions")
        at_least(self, 1, "horizon", "num_episodes")

    name = "tabular_mdp"

    @property
    def observation_space(self) -> spaces.Box:
        return unit_box(self.num_states)

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(self.num_actions)

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> TabularTasks:
        check_split(self.name, split)
        shape = (num_tasks, self.num_states, self.num_actions)
        concentration = torch.full(
            (*shape, self.num_states), OOD_CONCENTRATION if split == "ood" else 1.0, device=generator.device
        )
        return TabularTasks(
            transition=sample_dirichlet(concentration, generator),
            reward_mean=REWARD_MEAN + torch.randn(shape, generator=generator, device=generator.device),
        )

    def make_env(self, num_rows: int, generator: torch.Generator) -> TorchEnv[TabularTasks]:
        return TorchEnv(self, num_rows, generator)

    def initial_state(self, tasks: TabularTasks, generator: torch.Generator) -> Tensor:
        return torch.zeros(tasks.reward_mean.shape[0], dtype=torch.int64, device=tasks.reward_mean.device)  # [B]

    def transition(self, tasks: TabularTasks, state: Tensor, action: Tensor, generator: torch.Generator) -> Tensor:
        rows = torch.arange(state.shape[0], device=state.device)
        cumulative = tasks.transition[rows, state, action].cumsum(1)  # [B, S]
        uniform = torch.rand(state.shape[0], 1, generator=generator, device=state.device)
        # Rounding can make a uniform number exceed the last sum.
        return torch.searchsorted(cumulative, uniform).squeeze(1).clamp_(max=self.num_states - 1)

    def reward(
        self, tasks: TabularTasks, state: Tensor, action: Tensor, next_state: Tensor, generator: torch.Generator
    ) -> Tensor:
        rows = torch.arange(state.shape[0], device=state.device)
        noise = torch.randn(state.shape, generator=generator, device=state.device)
        return tasks.reward_mean[rows, state, action] + noise

    def terminated(self, tasks: TabularTasks, next_state: Tensor) -> None:
        return None

    def observation(self, tasks: TabularTasks, state: Tensor) -> Tensor:
        return one_hot_rows(self.num_states, state.device).index_select(0, state)

    def bounds(self, tasks: TabularTasks, num_episodes: int) -> dict[str, Tensor]:
        """Exact in each task, by backward induction: "oracle" knows the MDP, "random" takes uniform actions."""
        oracle, random = optimal_values(tasks, self.horizon)[0], random_values(tasks, self.horizon)  # [N, S] each
        return {"oracle": oracle[:, 0].expand(num_episodes, -1), "random": random[:, 0].expand(num_episodes, -1)}


def optimal_values(tasks: TabularTasks, horizon: int) -> tuple[Tensor, Tensor]:
    """Finite-horizon value iteration: values [N, S] with `horizon` steps to go, and the policy [H, N, S] int64."""
    values = torch.zeros_like(tasks.reward_mean[..., 0])  # [N, S]
    policy = []
    for _ in range(horizon):
        values, action = _backup(tasks, values).max(dim=-1)
        policy.append(action)
    return values, torch.stack(policy[::-1])


def random_values(tasks: TabularTasks, horizon: int) -> Tensor:
    """The uniformly random policy's values [N, S] with `horizon` steps to go."""
    values = torch.zeros_like(tasks.reward_mean[..., 0])  # [N, S]
    for _ in range(horizon):
        values = _backup(tasks, values).mean(dim=-1)
    return values


def _backup(tasks: TabularTasks, values: Tensor) -> Tensor:
    """Action values [N, S, A] one step before the states' values [N, S]."""
    num_tasks, num_states, num_actions = tasks.reward_mean.shape
    flat = tasks.transition.reshape(num_tasks, num_states * num_actions, num_states)
    return tasks.reward_mean + torch.bmm(flat, values.unsqueeze(2)).view(num_tasks, num_states, num_actions)


def sample_dirichlet(concentration: Tensor, generator: torch.Generator) -> Tensor:
    """Dirichlet samples over the last axis; `torch.distributions` does not accept a generator."""
    # The double-precision gamma keeps small concentrations from underflowing to a row of zeros.
    gamma = torch._standard_gamma(concentration.double(), generator)  # pyright: ignore[reportPrivateImportUsage]
    gamma = gamma.clamp_min(torch.finfo(torch.float64).tiny)
    return (gamma / gamma.sum(-1, keepdim=True)).float()
