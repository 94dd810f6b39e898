"""Collection for replay: a fixed set of training tasks, some of which are revisited at every iteration.

Rakelly et al. Efficient off-policy meta-reinforcement learning via probabilistic context variables (2019), PEARL.

First, episodes are collected in every task with latents from the prior. Then, in each iteration, some tasks start a new
recent window, from which contexts are sampled, and collect episodes with latents from the prior, from the posterior,
and from the posterior again; the last of these stay outside the window.

Deviations: 1. all tasks are run at once, in `copies` rows each; the episodes of these rows share one posterior. With
one copy, the posterior comes from a fresh context for each episode, as published. 2. the published code starts the
posterior's phases with an episode from the prior; here all of their episodes are from the posterior. 3. the tasks of an
iteration are distinct; the published code samples them with replacement. 4. amounts are in episodes, not in steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.evaluation import Tail, tail_metrics
from metarl.parallel import Share, align, current, exchanged, is_shared, sharing, total_number
from metarl.protocols import Agent, AgentConfig, Measures, Split, TaskFamily, VectorEnv
from metarl.records import Record, Trajectory, by_task
from metarl.rl.replay import Replay, Transition
from metarl.rl.rollouts import check_finite, collect
from metarl.rl.trials import ActingSource, check_trajectory_memory
from metarl.source import Draw, TrainConfig
from metarl.task_samplers.coordinates import nearest_distinct
from metarl.task_samplers.sampler import UniformSampler


class ReplayConfig(AgentConfig, Protocol):
    """The configuration of an agent that learns from replay; amounts are episodes per task."""

    @property
    def num_train_tasks(self) -> int: ...
    @property
    def initial_episodes(self) -> int: ...  # from the prior, in every task, before the first iteration
    @property
    def prior_episodes(self) -> int: ...  # from the prior, in the tasks of an iteration
    @property
    def posterior_episodes(
        self,
    ) -> int: ...  # from the posterior, in the tasks of an iteration
    @property
    def extra_episodes(self) -> int: ...  # from the posterior, outside the recent window
    @property
    def context(self) -> int: ...  # transitions per task from which a posterior is inferred
    @property
    def capacity(self) -> int: ...  # transitions per task in replay
    @property
    def max_gigabytes(self) -> float: ...  # memory limit of the replay
    @property
    def shaped_reward(self) -> str | None: ...  # metric used as the critic's reward; None: the task's reward


class ReplayLearner(Agent[Any, Any], Protocol):
    """An agent whose `update` learns from a replay owned by its source."""

    def collecting(self, num_tasks: int, copies: int, context: Transition | None) -> Any:
        """The state with which to collect, for `copies` rows of each task.

        context: transitions [num_tasks, K, ...] from which to infer the posterior; None: the prior.
        """
        ...


@dataclass(frozen=True)
class Collected:
    """The experience of one phase of an iteration."""

    phase: str  # "initial", "prior", "posterior" or "extra"
    trajectory: Trajectory[Any]


class ReplaySource(ActingSource):
    """Owns the training tasks and the replay; collects in `num_tasks` of them per iteration, in `copies` rows each.

    Raises:
        ValueError: when the copies do not divide the episodes of a phase.
    """

    def __init__(
        self,
        config: ReplayConfig,
        family: TaskFamily,
        train: TrainConfig,
        generators: Mapping[str, torch.Generator],
    ) -> None:
        super().__init__(config, family, train, generators)
        self._config = config
        self.score_tag = "meta_train/return/prior"  # unless the configuration has posterior episodes

    def make_learner(self, num_iterations: int) -> Any:
        """A fresh agent, its training tasks, their environment and an empty replay.

        Raises:
            ValueError: when tasks, copies and episodes are inconsistent, the environment lacks the metric, or the
                replay would exceed its memory limit.
        """
        config = self._config
        if self.num_tasks > config.num_train_tasks:
            raise ValueError(
                f"num_tasks is {self.num_tasks}; must be from 1 to {config.num_train_tasks}, the number of train tasks"
            )
        for name in ("initial_episodes", "prior_episodes", "posterior_episodes", "extra_episodes"):
            if getattr(config, name) % self.copies:
                raise ValueError(f"{name} is {getattr(config, name)}; must be a multiple of copies, {self.copies}")
        phases = config.prior_episodes + config.posterior_episodes + config.extra_episodes
        if config.capacity < phases * self.family.horizon:
            raise ValueError(
                f"capacity is {config.capacity}; must hold an iteration's {phases} episodes of "
                f"{self.family.horizon} steps, {phases * self.family.horizon}"
            )
        first = config.num_train_tasks * config.initial_episodes, self.num_tasks * phases
        check_trajectory_memory(self.family, max(first), self.family.horizon)
        self.tasks = self.family.sample(config.num_train_tasks, "train", self._generators["task"])
        with sharing(self.num_tasks) as share:
            self.env = self.family.make_env(share.size * self.copies, self._generators["env"])
        self._shaped = _metric_index(self.env, config.shaped_reward)
        if config.posterior_episodes + config.extra_episodes:
            self.score_tag = "meta_train/return/posterior"
        learner = config.make(
            self.family.observation_space,
            self.family.action_space,
            num_iterations=num_iterations,
            generator=self._generators["initialisation"],
        )
        self.replay = Replay(
            config.num_train_tasks,
            config.capacity,
            self.family.observation_space.shape[0],
            self.family.action_space.shape[0] if isinstance(self.family.action_space, spaces.Box) else None,
            max_gigabytes=config.max_gigabytes,
            device=self._generators["initialisation"].device,
        )
        return learner

    def draw(self, learner: ReplayLearner) -> Draw[Replay]:
        """The replay after an iteration's collection; the first draw also collects the initial episodes.

        Raises:
            FloatingPointError: when an observation or a reward is not finite; names the task and the step.
        """
        config, generator = self._config, self._generators["task"]
        collected: list[Collected] = []
        if not bool((self.replay.num_items > 0).all()):
            everything = torch.arange(config.num_train_tasks, device=generator.device)
            with sharing(config.num_train_tasks) as share:
                env = self.family.make_env(share.size * self.copies, self._generators["env"])
                collected += self._collect(learner, env, everything, "initial", config.initial_episodes)
                self._count_diverged(env)
        tasks = self._chosen_tasks(generator)
        self.replay.forget_recent(tasks)
        for phase in ("prior", "posterior", "extra"):
            collected += self._collect(learner, self.env, tasks, phase, getattr(config, f"{phase}_episodes"))
        align(self._generators["env"], self._generators["policy"])
        chosen = self.sampler.report(self.tasks[tasks], self._task_scores(collected))
        metrics = {**self._metrics(collected), **chosen}
        return Draw(self.replay, round(total_number(_num_steps(collected))), metrics)

    def _chosen_tasks(self, generator: torch.Generator) -> Tensor:
        """Which training tasks to collect in, all different: [num_tasks]."""
        if isinstance(self.sampler, UniformSampler):
            order = torch.randperm(len(self.tasks), generator=generator, device=generator.device)
            return order[: self.num_tasks]
        return nearest_distinct(self.sampler.propose(self.num_tasks, generator), self.tasks)

    def _task_scores(self, collected: list[Collected]) -> Tensor:
        """The mean return of this iteration's episodes in each of its tasks, from the posterior if any are: [M]."""
        share = current() or Share(self.num_tasks)
        parts = [part for part in collected if part.phase in ("posterior", "extra")]
        parts = parts or [part for part in collected if part.phase == "prior"]
        returns = [part.trajectory.episode_returns(int(part.trajectory.episode_index.max()) + 1) for part in parts]
        return share.gathered(torch.cat(returns).reshape(-1, share.size, self.copies).mean((0, 2)))

    def _collect(
        self, learner: ReplayLearner, env: VectorEnv, tasks: Tensor, phase: str, num_episodes: int
    ) -> list[Collected]:
        """The episodes of a phase; the posterior is updated after each round of `copies` episodes.

        They are those of this process's tasks; the replay holds those of all.
        """
        share = current() or Share(len(tasks))
        tasks, posterior = share.own(tasks), phase in ("posterior", "extra")
        rounds, length = (num_episodes // self.copies, 1) if posterior else (1, num_episodes // self.copies)
        met, collected, generator = self.tasks[tasks], [], self._generators["policy"]
        for _ in range(rounds if num_episodes else 0):
            with share.noise():
                context = self.replay.sample(tasks, self._config.context, generator, recent=True) if posterior else None
                state = learner.collecting(len(tasks), self.copies, context)
                trajectory = collect(env, learner, met, length, generator=generator, state=state)
            shaped_reward = self._shaped_reward(trajectory)
            check_finite({"shaped reward": shaped_reward}, trajectory.valid, met)
            self._check_scale(trajectory)
            self._remember(tasks, trajectory, shaped_reward, recent=phase != "extra")
            collected.append(Collected(phase, trajectory))
        return collected

    def _remember(self, tasks: Tensor, trajectory: Trajectory[Any], shaped_reward: Tensor, *, recent: bool) -> None:
        """Store a trajectory of tasks [M]; shaped_reward [T, B]; recent: also as context. Every process stores all."""
        stored = tasks, Transition.of(trajectory, shaped_reward, len(tasks)), by_task(trajectory.valid, len(tasks))
        for theirs, transitions, valid in exchanged(stored) if is_shared() else [stored]:
            self.replay.add(theirs, transitions, valid, recent=recent)

    def _shaped_reward(self, trajectory: Trajectory[Any]) -> Tensor:
        if self._shaped is None or trajectory.metrics is None:
            return trajectory.reward
        return trajectory.metrics[..., self._shaped]

    def _metrics(self, experience: list[Collected]) -> dict[str, float]:
        """Mean returns of the iteration's episodes from the prior and from the posterior, on training tasks."""
        share = current() or Share(self.num_tasks)
        returns: dict[str, list[Tensor]] = {"prior": [], "posterior": []}
        for part in experience:
            if part.phase != "initial":
                num_episodes = int(part.trajectory.episode_index.max()) + 1
                name = "prior" if part.phase == "prior" else "posterior"
                of_all = share.gathered(part.trajectory.episode_returns(num_episodes), dim=1)
                returns[name].append(of_all.flatten())
        metrics = {f"meta_train/return/{name}": float(torch.cat(r).mean()) for name, r in returns.items() if r}
        metrics |= tail_metrics("meta_train/return", Tail.of(self._task_scores(experience), higher_is_better=True))
        metrics["rollout/ep_rew_mean"] = float(torch.cat([r for part in returns.values() for r in part]).mean())
        ends = sum(int((part.trajectory.episode_start & part.trajectory.valid).sum()) for part in experience)
        metrics["rollout/ep_len_mean"] = total_number(_num_steps(experience)) / total_number(ends)
        return {**metrics, **self._count_diverged(self.env)}

    def _known_tasks(self, split: Split, num_tasks: int) -> Record | None:
        """The training tasks, at most `num_tasks` of them, for the split "train"."""
        return self.tasks[: max(num_tasks, 1)] if split == "train" else None

    def state_dict(self, *, to_train: bool = True) -> dict[str, Any]:
        """Includes the training tasks, because generators on another kind of device would sample different ones."""
        state = {**super().state_dict(to_train=to_train), "tasks": dict(vars(self.tasks))}
        return {**state, "replay": self.replay.state_dict()} if to_train else state

    def load_state_dict(self, state: Mapping[str, Any], *, to_train: bool = True) -> None:
        super().load_state_dict(state, to_train=to_train)
        saved = {name: value.to(self._generators["task"].device) for name, value in state["tasks"].items()}
        self.tasks = replace(self.tasks, **saved)  # pyright: ignore[reportArgumentType], records are dataclasses
        if to_train:
            self.replay.load_state_dict(state["replay"])


def _num_steps(collected: list[Collected]) -> int:
    return sum(part.trajectory.num_steps for part in collected)


def _metric_index(env: VectorEnv, name: str | None) -> int | None:
    """The index of a metric among the environment's metrics; None for None.

    Raises:
        ValueError: when it has no such metric.
    """
    names = env.metric_names if isinstance(env, Measures) else ()
    if name is not None and name not in names:
        raise ValueError(f"shaped_reward is {name!r}; must be a metric of this family: {', '.join(names) or 'none'}")
    return None if name is None else names.index(name)
