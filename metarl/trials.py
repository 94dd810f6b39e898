"""Trials as the outer loop's experience: fresh tasks of a family, met by an agent in a vectorised environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from metarl.evaluation import RETURN, Evaluation, evaluate, logged_episodes, mean_metrics
from metarl.protocols import Agent, AgentConfig, Split, TaskFamily
from metarl.records import Trajectory
from metarl.rollouts import collect


class TrialSource:
    """Draws a trial in each of `num_tasks` fresh training tasks, in `copies` rows each."""

    measure = RETURN
    unit = "environment steps"
    unit_rate = "env-steps/s"
    score_tag = "meta_train/return/total"

    def __init__(
        self,
        family: TaskFamily,
        num_tasks: int,
        copies: int,
        num_episodes: int | None,
        generators: Mapping[str, torch.Generator],
    ) -> None:
        self.family, self.num_tasks, self.copies = family, num_tasks, copies
        self.num_episodes = family.num_episodes if num_episodes is None else num_episodes
        self.env = family.make_env(num_tasks * copies, generators["env"])
        self.num_diverged = 0  # simulations that were reset because they diverged, where environments count them
        self._generators = generators
        self._diverged_before = 0  # in this source's environment, up to the last draw

    def make_learner(self, config: AgentConfig, num_iterations: int) -> Agent[Any, Any]:
        return config.make(
            self.family.observation_space,
            self.family.action_space,
            num_iterations=num_iterations,
            generator=self._generators["initialisation"],
        )

    def draw(self, learner: Agent[Any, Any]) -> Trajectory[Any]:
        """A trial in fresh training tasks, with the finite numbers that learning needs.

        Raises:
            FloatingPointError: when an observation or a reward is not finite; names the task and the step.
        """
        tasks = self.family.sample(self.num_tasks, "train", self._generators["task"])
        trajectory = collect(self.env, learner, tasks, self.num_episodes, generator=self._generators["policy"])
        finite = {
            "observation": trajectory.obs.isfinite().all(-1) & trajectory.next_obs.isfinite().all(-1),
            "reward": trajectory.reward.isfinite(),
        }  # [T, B] each
        for name, good in finite.items():
            bad = ~good & trajectory.valid
            if bool(bad.any()):
                step, row = bad.nonzero()[0].tolist()
                task = tasks[row // self.copies]
                raise FloatingPointError(f"{name} at step {step} of row {row} is not finite; its task is {task}")
        return trajectory

    def amount(self, experience: Trajectory[Any]) -> int:
        return experience.num_steps

    def metrics(self, experience: Trajectory[Any]) -> dict[str, float]:
        measured = mean_metrics(self.env, experience.episode_metrics(self.num_episodes))
        returns = _return_metrics(experience, self.num_episodes)
        return {**returns, **by_episode("meta_train", measured), **self._count_diverged()}

    def _count_diverged(self) -> dict[str, float]:
        """How many simulations diverged since the last call; nothing where an environment cannot diverge."""
        total: int | None = getattr(self.env, "num_diverged", None)
        if total is None:
            return {}
        found, self._diverged_before = total - self._diverged_before, total
        self.num_diverged += found
        return {"rollout/num_diverged": float(found)}

    def evaluate(
        self,
        learner: Agent[Any, Any],
        *,
        agent_name: str,
        split: Split,
        num_tasks: int,
        num_episodes: int | None,
        generator: torch.Generator,
    ) -> Evaluation:
        return evaluate(
            self.family,
            learner,
            agent_name=agent_name,
            split=split,
            num_tasks=num_tasks,
            num_episodes=self.num_episodes if num_episodes is None else num_episodes,
            generator=generator,
        )


def _return_metrics(trajectory: Trajectory[Any], num_episodes: int) -> dict[str, float]:
    returns = trajectory.episode_returns(num_episodes).mean(1)  # [num_episodes]
    metrics = {f"meta_train/return/ep_{k}": float(returns[k - 1]) for k in logged_episodes(num_episodes)}
    metrics["meta_train/return/total"] = float(returns.sum())
    metrics["rollout/ep_rew_mean"] = float(returns.mean())
    metrics["rollout/ep_len_mean"] = trajectory.num_steps / (num_episodes * trajectory.valid.shape[1])
    return metrics


def by_episode(prefix: str, metrics: Mapping[str, list[float]]) -> dict[str, float]:
    """The family's own metrics by their logged tags, such as "meta_test/velocity_error/ep_1"."""
    return {
        f"{prefix}/{name}/ep_{k}": values[k - 1]
        for name, values in metrics.items()
        for k in logged_episodes(len(values))
    }
