"""Collection for replay: a fixed set of training tasks, to some of which the outer loop goes back at every iteration.

Rakelly et al. Efficient off-policy meta-reinforcement learning via probabilistic context variables (2019), PEARL.

First, every task is met by draws from the prior. Then, in each iteration, some tasks begin a new recent window, which
contexts are drawn from, and are met by draws from the prior, from the posterior, and from the posterior again; what the
last of these brings stays outside the window.

Deviations: 1. all tasks are met at once, in `copies` rows each: as many episodes share one posterior. With one copy it
is drawn from a fresh context for each episode, as published. 2. the published code begins the posterior's phases with
an episode from the prior; here all of their episodes are from the posterior. 3. the tasks of an iteration differ; the
published code draws them with replacement. 4. amounts are in episodes, not in steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from metarl.evaluation import RETURN, Evaluation, evaluate
from metarl.protocols import Agent, Measures, Split, TaskFamily, VectorEnv
from metarl.records import Trajectory
from metarl.rl.rollouts import collect
from metarl.rl.trials import check_finite


@runtime_checkable
class ReplayConfig(Protocol):
    """What the configuration of an agent says that learns from replay: amounts are episodes in each task."""

    num_train_tasks: int
    initial_episodes: int  # in every task before all else, from the prior
    prior_episodes: int  # in the tasks of an iteration
    posterior_episodes: int
    extra_episodes: int  # from the posterior, outside the recent window
    capacity: int  # steps of each task that are remembered
    shaped_reward: str | None  # the environment's metric that the critic learns from; None: the reward

    def make(self, *args: Any, **kwargs: Any) -> Any: ...  # see AgentConfig


class ReplayLearner(Agent[Any, Any], Protocol):
    """An agent that remembers by itself what is collected for it; its `update` learns from that."""

    @property
    def has_experience(self) -> bool: ...  # whether the initial episodes are over

    def collecting(self, tasks: Tensor, copies: int, *, posterior: bool, generator: torch.Generator) -> Any:
        """The state in which to collect in training tasks [M] by their numbers, in `copies` rows of each."""
        ...

    def forget_recent(self, tasks: Tensor) -> None:
        """Begin a new recent window in tasks [M]."""
        ...

    def remember(self, tasks: Tensor, trajectory: Trajectory[Any], shaped_reward: Tensor, *, recent: bool) -> None:
        """Keep a trajectory of tasks [M]; shaped_reward [T, B]; recent: also as context."""
        ...


@dataclass(frozen=True)
class Collected:
    """A part of an iteration's experience."""

    phase: str  # "initial", "prior", "posterior" or "extra"
    trajectory: Trajectory[Any]


class ReplaySource:
    """Meets `num_tasks` of the training tasks in each iteration, in `copies` rows each, and hands over what it saw.

    Raises:
        ValueError: when the copies do not divide the episodes of a phase.
    """

    env: VectorEnv
    measure = RETURN
    unit = "environment steps"
    unit_rate = "env-steps/s"

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
        self.num_diverged = 0
        self._diverged_before = 0  # in this source's own environment, up to the last draw
        self.score_tag = "meta_train/return/prior"  # until a configuration has posterior episodes
        self._generators = generators

    def make_learner(self, config: ReplayConfig, num_iterations: int) -> ReplayLearner:
        """
        Raises:
            ValueError: when tasks, copies and episodes do not fit together, or the environment lacks the metric.
        """
        if self.num_tasks > config.num_train_tasks:
            raise ValueError(
                f"num_tasks is {self.num_tasks}; allowed are 1 to the {config.num_train_tasks} training tasks"
            )
        for name in ("initial_episodes", "prior_episodes", "posterior_episodes", "extra_episodes"):
            if getattr(config, name) % self.copies:
                raise ValueError(f"{name} is {getattr(config, name)}; it must be a multiple of copies, {self.copies}")
        phases = config.prior_episodes + config.posterior_episodes + config.extra_episodes
        if config.capacity < phases * self.family.horizon:
            raise ValueError(
                f"capacity is {config.capacity}; it must hold an iteration's {phases} episodes of "
                f"{self.family.horizon} steps, {phases * self.family.horizon}"
            )
        self._config = config
        self.tasks = self.family.sample(config.num_train_tasks, "train", self._generators["task"])
        self.env = self.family.make_env(self.num_tasks * self.copies, self._generators["env"])
        self._shaped = _metric_index(self.env, config.shaped_reward)
        if config.posterior_episodes + config.extra_episodes:
            self.score_tag = "meta_train/return/posterior"
        return config.make(
            self.family.observation_space,
            self.family.action_space,
            num_iterations=num_iterations,
            generator=self._generators["initialisation"],
        )

    def draw(self, learner: ReplayLearner) -> list[Collected]:
        """The initial episodes, if they are still to come, and those of an iteration; all are remembered.

        Raises:
            FloatingPointError: when an observation or a reward is not finite; names the task and the step.
        """
        config, experience, generator = self._config, [], self._generators["task"]
        if not learner.has_experience:
            everything = torch.arange(config.num_train_tasks, device=generator.device)
            env = self.family.make_env(config.num_train_tasks * self.copies, self._generators["env"])
            experience += self._collect(learner, env, everything, "initial", config.initial_episodes)
            self._count_diverged(env)
        order = torch.randperm(config.num_train_tasks, generator=generator, device=generator.device)
        tasks = order[: self.num_tasks]
        learner.forget_recent(tasks)
        for phase in ("prior", "posterior", "extra"):
            experience += self._collect(learner, self.env, tasks, phase, getattr(config, f"{phase}_episodes"))
        return experience

    def _collect(
        self, learner: ReplayLearner, env: VectorEnv, tasks: Tensor, phase: str, num_episodes: int
    ) -> list[Collected]:
        """Episodes of a phase; the posterior is looked at anew after each round of `copies` episodes."""
        posterior = phase in ("posterior", "extra")
        rounds, length = (num_episodes // self.copies, 1) if posterior else (1, num_episodes // self.copies)
        met, collected, generator = self.tasks[tasks], [], self._generators["policy"]
        for _ in range(rounds if num_episodes else 0):
            state = learner.collecting(tasks, self.copies, posterior=posterior, generator=generator)
            trajectory = collect(env, learner, met, length, generator=generator, state=state)
            shaped_reward = self._shaped_reward(trajectory)
            check_finite(trajectory, met, shaped_reward)
            learner.remember(tasks, trajectory, shaped_reward, recent=phase != "extra")
            collected.append(Collected(phase, trajectory))
        return collected

    def _shaped_reward(self, trajectory: Trajectory[Any]) -> Tensor:
        if self._shaped is None or trajectory.metrics is None:
            return trajectory.reward
        return trajectory.metrics[..., self._shaped]

    def amount(self, experience: list[Collected]) -> int:
        return sum(part.trajectory.num_steps for part in experience)

    def metrics(self, experience: list[Collected]) -> dict[str, float]:
        """Mean returns of the iteration's episodes from the prior and from the posterior, on training tasks."""
        returns: dict[str, list[Tensor]] = {"prior": [], "posterior": []}
        for part in experience:
            if part.phase != "initial":
                num_episodes = int(part.trajectory.episode_index.max()) + 1
                name = "prior" if part.phase == "prior" else "posterior"
                returns[name].append(part.trajectory.episode_returns(num_episodes).flatten())
        metrics = {f"meta_train/return/{name}": float(torch.cat(r).mean()) for name, r in returns.items() if r}
        metrics["rollout/ep_rew_mean"] = float(torch.cat([r for part in returns.values() for r in part]).mean())
        ends = sum(int((part.trajectory.episode_start & part.trajectory.valid).sum()) for part in experience)
        metrics["rollout/ep_len_mean"] = self.amount(experience) / ends
        return {**metrics, **self._count_diverged(self.env)}

    def _count_diverged(self, env: VectorEnv) -> dict[str, float]:
        """How many simulations diverged since the last call; nothing where an environment cannot diverge."""
        total: int | None = getattr(env, "num_diverged", None)
        if total is None:
            return {}
        before = self._diverged_before if env is self.env else 0
        if env is self.env:
            self._diverged_before = total
        self.num_diverged += total - before
        return {"rollout/num_diverged": float(total - before)}

    def evaluate(
        self,
        learner: ReplayLearner,
        *,
        agent_name: str,
        split: Split,
        num_tasks: int,
        num_episodes: int | None,
        generator: torch.Generator,
    ) -> Evaluation:
        """The adaptation curve on fresh tasks of a split; for "train", on `num_tasks` of the training tasks at most.

        Raises:
            ValueError: when a number is below one, or the family does not declare the split.
        """
        return evaluate(
            self.family,
            learner,
            agent_name=agent_name,
            split=split,
            num_tasks=num_tasks,
            num_episodes=self.num_episodes if num_episodes is None else num_episodes,
            generator=generator,
            tasks=self.tasks[: max(num_tasks, 1)] if split == "train" else None,
        )

    def state_dict(self) -> dict[str, Any]:
        """With the training tasks, as generators of another kind of device would draw others from the same seed."""
        return {"num_diverged": self.num_diverged, "tasks": dict(vars(self.tasks))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.num_diverged = state.get("num_diverged", self.num_diverged)
        saved = {name: value.to(self._generators["task"].device) for name, value in state.get("tasks", {}).items()}
        self.tasks = replace(self.tasks, **saved)  # pyright: ignore[reportArgumentType], records are dataclasses


def _metric_index(env: VectorEnv, name: str | None) -> int | None:
    """Where an environment's metric is among its metrics.

    Raises:
        ValueError: when it has no such metric.
    """
    names = env.metric_names if isinstance(env, Measures) else ()
    if name is not None and name not in names:
        raise ValueError(f"shaped_reward is {name!r}; this family's metrics are {', '.join(names) or 'none'}")
    return None if name is None else names.index(name)
