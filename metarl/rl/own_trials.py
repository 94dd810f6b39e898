"""An agent's own trials as contexts for itself: what it will read when it acts is then among what it learns from.

Ross et al. A reduction of imitation learning and structured prediction to no-regret online learning (2011), "DAgger":
the learner acts, an expert labels the states that it comes to, and it learns from all of them so far.

Deviations: 1. the expert never acts, not even at first. 2. only the most recent trials are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from metarl.parallel import Share, align
from metarl.protocols import Agent, EpisodesOfOneLength, KnowsActions, LabelsActions, TaskFamily
from metarl.records import LabelledTransitions, Record, Trajectory, cat
from metarl.rl.rollouts import collect


@runtime_checkable
class SolvedFamily(TaskFamily, KnowsActions, LabelsActions, Protocol):
    """A task family whose optimal actions are known in any observation, and in queries of its own."""


@dataclass(frozen=True)
class LabelledTrials(Record):
    """Whole trials of N tasks, with the optimal actions in what the agent saw and elsewhere."""

    steps: LabelledTransitions  # [N, T, ...]; a query is what the agent saw next
    query: Tensor  # [N, T + 1, O], uniform queries
    optimal: Tensor  # [N, T + 1, A], in these


class OwnTrials:
    """The agent's most recent batches of trials in training tasks, with the optimal actions at each of their steps.

    num_batches: how many batches are kept. generators: those of "env" and "policy" are drawn from.

    Raises, when trials are run:
        ValueError: when episodes may end early, so trials differ in length.
    """

    def __init__(self, family: SolvedFamily, num_batches: int, generators: Mapping[str, torch.Generator]) -> None:
        self.family, self.num_batches, self._generators = family, num_batches, generators
        self._kept: LabelledTrials | None = None  # of all batches that are kept; the oldest comes first

    def run(self, learner: Agent[Any, Any], tasks: Record, share: Share) -> Tensor:
        """A trial in each of N tasks, of which this process runs its share; returns each episode's returns [E, N]."""
        env_generator, generator = self._generators["env"], self._generators["policy"]
        own, num_episodes = share.own(tasks), self.family.num_episodes
        with share.noise():
            env = self.family.make_env(share.size, env_generator)
            trajectory = collect(env, learner, own, num_episodes, generator=generator)
            if not isinstance(env, EpisodesOfOneLength) or env.steps_per_episode is None:
                raise ValueError(f"own must be 0 on {self.family.name}, whose episodes may end early")
            labelled = self._labelled(trajectory, own)
        align(env_generator, generator)
        batch = share.gathered(labelled)
        known = [] if self._kept is None else [self._kept]
        self._kept = cat([*known, batch])[-self.num_batches * len(tasks) :]
        return share.gathered(trajectory.episode_returns(num_episodes), dim=1)

    def parts(self, count: int, num_steps: int, generator: torch.Generator) -> LabelledTransitions:
        """Consecutive transitions of trials, both drawn uniformly: [count, num_steps, ...].

        A part may begin up to its length before its trial, and is then the trial's first steps: when the agent acts,
        these are its context first. Queries are what the agent saw next where its context was just what precedes the
        query: after each of a trial's first steps, and after the last step of a part. The others are uniform: what an
        agent that has found the goal sees would tell the goal to one that has read nothing yet.
        """
        kept = self._kept
        assert kept is not None, "trials are run before any part of one is drawn"
        num_trials, longest = kept.steps.action.shape
        device = generator.device
        trial = torch.randint(num_trials, (count, 1), generator=generator, device=device)
        last = longest - num_steps
        first = torch.randint(-num_steps, last + 1, (count, 1), generator=generator, device=device).clamp(min=0)
        places, queries = (first + torch.arange(length, device=device) for length in (num_steps, num_steps + 1))
        is_own = ((first == 0) | (queries == queries[:, -1:])).unsqueeze(-1)
        seen = kept.steps
        return LabelledTransitions(
            obs=seen.obs[trial, places],
            action=seen.action[trial, places],
            reward=seen.reward[trial, places],
            next_obs=seen.next_obs[trial, places],
            query=torch.where(is_own, seen.query[trial, queries], kept.query[trial, queries]),
            optimal=torch.where(is_own, seen.optimal[trial, queries], kept.optimal[trial, queries]),
        )

    def _labelled(self, trajectory: Trajectory[Any], tasks: Record) -> LabelledTrials:
        obs, action, reward, next_obs = (
            value.transpose(0, 1).contiguous()
            for value in (trajectory.obs, trajectory.decision.action, trajectory.reward, trajectory.next_obs)
        )
        query = torch.cat([obs, next_obs[:, -1:]], 1)
        num_queries = query.shape[1]
        optimal = self.family.optimal_actions(tasks.repeat_interleave(num_queries), query.flatten(0, 1))
        steps = LabelledTransitions(obs, action, reward, next_obs, query, optimal.unflatten(0, (-1, num_queries)))
        elsewhere = self.family.labelled_transitions(tasks, num_queries - 1, self._generators["env"])
        return LabelledTrials(steps, elsewhere.query, elsewhere.optimal)

    def state_dict(self) -> dict[str, Any]:
        kept = self._kept
        return {} if kept is None else {**vars(kept), "steps": dict(vars(kept.steps))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hold what was saved, on the generators' device."""
        self._kept = None
        if state:
            kept = LabelledTrials(**{**state, "steps": LabelledTransitions(**state["steps"])})
            self._kept = kept.to(self._generators["env"].device)
