"""Tabular MDP baselines, all trials at once: random, PSRL and the optimum of the known MDP.

The comparison of Duan et al. 2016, "RL²", table 2. PSRL (Strens 2000; Osband et al. 2013) plans in one draw from the
posterior before each episode, with flat Dirichlet transitions and mean rewards N(m, 1) observed with unit noise.

1. "psrl" has m = 0, the default of its authors' code (TabulaRL), though the rewards of these tasks have m = 1. This
   reproduces the paper's numbers: 137.4 +- 0.3 over 10 episodes (paper: 138.1), 901 +- 2 over 50 (904.4).
2. "psrl_true_prior" has m = 1. It explores more and gets 133.1 +- 0.3 and 902 +- 2: no improvement in either.
"""

from __future__ import annotations

import torch
from torch import Tensor

from envs.torch_families.tabular import (
    REWARD_MEAN,
    TabularMDP,
    TabularTasks,
    optimal_values,
    random_values,
    sample_dirichlet,
)
from experiments.baselines import BaselineResult

SOURCE = "Duan et al. 2016, table 2"
PUBLISHED = {10: {"random": 100.1, "psrl": 138.1}, 50: {"random": 499.7, "psrl": 904.4}}  # by number of episodes
PUBLISHED_SIZE = (10, 5, 10)  # states, actions, horizon


def tabular_baselines(family: TabularMDP, num_trials: int, generator: torch.Generator) -> list[BaselineResult]:
    """Every method on `num_trials` test tasks."""
    same_size = (family.num_states, family.num_actions, family.horizon) == PUBLISHED_SIZE
    published = PUBLISHED.get(family.num_episodes, {}) if same_size else {}
    source = [SOURCE] if published else []
    tasks = family.sample(num_trials, "test", generator)
    exact = "exact value of each task"
    returns = {
        "oracle": (optimal_values(tasks, family.horizon)[0][:, 0].expand(family.num_episodes, -1), exact),
        "psrl": (psrl(family, tasks, generator), ", ".join(["reward prior N(0, 1)", *source])),
        "psrl_true_prior": (psrl(family, tasks, generator, REWARD_MEAN), f"reward prior N({REWARD_MEAN:g}, 1)"),
        "random": (
            random_values(tasks, family.horizon)[:, 0].expand(family.num_episodes, -1),
            ", ".join([exact, *source]),
        ),
    }
    return [
        BaselineResult.of(name, by_episode, published.get(name), source)
        for name, (by_episode, source) in returns.items()
    ]


class Belief:
    """The posterior over the MDPs of B rows, from flat Dirichlet transitions and mean rewards N(reward_mean, 1)."""

    def __init__(self, family: TabularMDP, num_rows: int, reward_mean: float) -> None:
        shape = (num_rows, family.num_states, family.num_actions)
        self.transitions = torch.ones(*shape, family.num_states)  # [B, S, A, S], with the flat prior's counts
        self.visits = torch.ones(shape)  # [B, S, A]; the prior is worth one observation of its mean
        self.reward = torch.full(shape, reward_mean)  # [B, S, A], summed

    def update(self, state: Tensor, action: Tensor, reward: Tensor, next_state: Tensor) -> None:
        rows = torch.arange(len(state))
        self.transitions[rows, state, action, next_state] += 1
        self.visits[rows, state, action] += 1
        self.reward[rows, state, action] += reward

    def sample(self, generator: torch.Generator) -> TabularTasks:
        """One posterior sample of each row's MDP."""
        noise = torch.randn(self.visits.shape, generator=generator)
        return TabularTasks(
            transition=sample_dirichlet(self.transitions, generator),
            reward_mean=self.reward / self.visits + noise / self.visits.sqrt(),
        )


def psrl(family: TabularMDP, tasks: TabularTasks, generator: torch.Generator, reward_prior_mean: float = 0.0) -> Tensor:
    """Returns [K, N] of the K episodes of one trial of posterior sampling in each task."""
    num_rows = len(tasks)
    rows, belief = torch.arange(num_rows), Belief(family, num_rows, reward_prior_mean)
    env = family.make_env(num_rows, generator)
    state = env.reset(tasks).obs.argmax(dim=1)
    returns = torch.zeros(family.num_episodes, num_rows)
    for episode in range(family.num_episodes):
        for policy in optimal_values(belief.sample(generator), family.horizon)[1]:  # [N, S]
            action = policy[rows, state]
            step = env.step(action)
            belief.update(state, action, step.reward, step.next_obs.argmax(dim=1))
            returns[episode] += step.reward
            state = step.obs.argmax(dim=1)
    return returns
