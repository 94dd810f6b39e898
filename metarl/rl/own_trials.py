"""An agent's own trials as contexts for itself: what it will read when it acts is then among what it learns from.

Ross et al. A reduction of imitation learning and structured prediction to no-regret online learning (2011), "DAgger":
the learner acts, an expert labels the states that it comes to, and it learns from all of them so far.

Deviations: 1. the expert never acts, not even at first. 2. only the most recent trials are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from metarl.parallel import Share, align
from metarl.protocols import Agent, KnowsActions, TaskFamily
from metarl.records import LabelledTransitions, Record, Trajectory, cat
from metarl.rl.rollouts import collect


@runtime_checkable
class SolvedFamily(TaskFamily, KnowsActions, Protocol):
    """A task family whose optimal actions are known in any observation."""


class OwnTrials:
    """The agent's most recent batches of trials in training tasks, with the optimal actions at each of their steps.

    family: one whose trials all have the same number of steps. num_batches: how many batches are kept. generators:
    those of "env" and "policy" are drawn from.
    """

    def __init__(self, family: SolvedFamily, num_batches: int, generators: Mapping[str, torch.Generator]) -> None:
        self.family, self.num_batches, self._generators = family, num_batches, generators
        self._batches: list[LabelledTransitions] = []  # [N, T, ...]; the oldest comes first

    def run(self, learner: Agent[Any, Any], tasks: Record, share: Share) -> Tensor:
        """A trial in each of N tasks, of which this process runs its share; returns each episode's returns [E, N]."""
        env_generator, generator = self._generators["env"], self._generators["policy"]
        own, num_episodes = share.own(tasks), self.family.num_episodes
        with share.noise():
            env = self.family.make_env(share.size, env_generator)
            trajectory = collect(env, learner, own, num_episodes, generator=generator)
        align(env_generator, generator)
        batch = share.gathered(self._labelled(trajectory, own))
        self._batches = [*self._batches, batch][-self.num_batches :]
        return share.gathered(trajectory.episode_returns(num_episodes), dim=1)

    def parts(self, count: int, num_steps: int, generator: torch.Generator) -> LabelledTransitions:
        """Consecutive transitions of trials, both drawn uniformly: [count, num_steps, ...].

        A query is what the agent saw next. A part may begin up to half its length before its trial, and is then the
        trial's first steps: when the agent acts, its context is these first.
        """
        kept = cat(self._batches)
        num_trials, longest = kept.action.shape
        device = generator.device
        trial = torch.randint(num_trials, (count, 1), generator=generator, device=device)
        last = longest - num_steps
        first = torch.randint(-(num_steps // 2), last + 1, (count, 1), generator=generator, device=device).clamp(min=0)
        steps, queries = (first + torch.arange(length, device=device) for length in (num_steps, num_steps + 1))
        return LabelledTransitions(
            obs=kept.obs[trial, steps],
            action=kept.action[trial, steps],
            reward=kept.reward[trial, steps],
            next_obs=kept.next_obs[trial, steps],
            query=kept.query[trial, queries],
            optimal=kept.optimal[trial, queries],
        )

    def _labelled(self, trajectory: Trajectory[Any], tasks: Record) -> LabelledTransitions:
        """Whole trials [N, T, ...], and the optimal actions in all that was seen [N, T + 1, ...]."""
        obs, action, reward, next_obs = (
            value.transpose(0, 1).contiguous()
            for value in (trajectory.obs, trajectory.decision.action, trajectory.reward, trajectory.next_obs)
        )
        query = torch.cat([obs, next_obs[:, -1:]], 1)
        num_queries = query.shape[1]
        optimal = self.family.optimal_actions(tasks.repeat_interleave(num_queries), query.flatten(0, 1))
        return LabelledTransitions(obs, action, reward, next_obs, query, optimal.unflatten(0, (-1, num_queries)))

    def state_dict(self) -> dict[str, Any]:
        return {"batches": [dict(vars(batch)) for batch in self._batches]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hold what was saved, on the generators' device."""
        device = self._generators["env"].device
        batches: Sequence[Mapping[str, Tensor]] = state["batches"]
        self._batches = [LabelledTransitions(**batch).to(device) for batch in batches]
