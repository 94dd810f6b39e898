"""Sources whose experience an agent collects in a vectorised environment; above all trials in fresh tasks."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.evaluation import (
    RETURN,
    Evaluation,
    Reference,
    Tail,
    TrialScores,
    by_point,
    evaluate,
    logged_points,
    mean_metrics,
    measure_of,
    tail_metrics,
)
from metarl.memory import check_memory
from metarl.parallel import Share, align, current, process_index, sharing, total_number
from metarl.protocols import Agent, AgentConfig, Split, TaskFamily, VectorEnv
from metarl.records import Record, Trajectory, cat
from metarl.rl.privileged import CriticSees, shown, size_for
from metarl.rl.rollouts import rows_per_task, run_trial
from metarl.rl.step_graph import cuda_graph
from metarl.source import Draw, TrainConfig, check_kinds, sampler_of

Trial = Sequence[Trajectory[Any]]  # trajectories of all tasks, one per block


LARGEST, SMALLEST = (
    15.0,
    0.003,
)  # root mean squares of observations; those of our robots, but the humanoid's, lie within


class ActingSource:
    """What sources of an RL agent's experience have in common: the family, its environment, what can go wrong there.

    Simulations that diverge are counted. If observations are badly scaled for an agent that does not normalise them,
    one line on stderr says so.
    """

    env: VectorEnv  # for training; made with the learner
    shares_tasks = True
    records_steps = False  # whether a step of its collection may be one CUDA graph
    unit = "environment steps"
    unit_rate = "env-steps/s"

    def __init__(
        self,
        config: AgentConfig,
        family: TaskFamily,
        train: TrainConfig,
        generators: Mapping[str, torch.Generator],
    ) -> None:
        check_kinds(config, family, acts=True, fits=isinstance(family, TaskFamily))
        if train.graphs and not self.records_steps:
            raise ValueError(f"graphs is True; must be False for {type(config).__name__}: its steps cannot be recorded")
        self._config = config
        self.family, self.num_tasks, self.copies = family, train.num_tasks, train.copies
        self.num_points = family.num_episodes if train.num_points is None else train.num_points
        self.measure = RETURN
        self.num_diverged = 0  # simulations so far that were reset because they diverged
        self._generators = generators
        self._counted: tuple[VectorEnv | None, int] = (None, 0)  # the environment last counted in, and its count then
        self._critic_sees: CriticSees = getattr(config, "critic_sees", "nothing")
        self._privileged_size = size_for(self._critic_sees, family, generators["task"].device)
        self._scale_is_unknown = getattr(config, "normalise_obs", True) is False
        self.sampler = sampler_of(train, self._fresh_tasks, generators["task"].device, chooses="parameters")

    def _make_agent(self, num_iterations: int) -> Agent[Any, Any]:
        return self._config.make(
            self.family.observation_space,
            self.family.action_space,
            num_iterations=num_iterations,
            generator=self._generators["initialisation"],
            **({"privileged_size": self._privileged_size} if self._privileged_size else {}),
        )

    def _fresh_tasks(self, count: int, generator: torch.Generator) -> Record:
        return self.family.sample(count, "train", generator)

    def evaluate(
        self,
        learner: Agent[Any, Any],
        *,
        agent_name: str,
        split: Split,
        num_tasks: int,
        num_points: int | None,
        generator: torch.Generator,
        family: TaskFamily | None = None,
        deterministic: bool = False,
    ) -> Evaluation:
        """The adaptation curve on fresh tasks of a split, or on those that training knows; all as in `Source`.

        Raises:
            ValueError: when a number is below one, or the family does not declare the split.
        """
        return evaluate(
            self.family if family is None else family,
            learner,
            references=self._references(learner, self.family if family is None else family, deterministic),
            agent_name=agent_name,
            split=split,
            num_tasks=num_tasks,
            num_points=self.num_points if num_points is None else num_points,
            generator=generator,
            deterministic=deterministic,
            tasks=self._known_tasks(split, num_tasks) if family is None else None,
            trained_points=self._trained_points(learner),
        )

    def _references(self, learner: Agent[Any, Any], family: TaskFamily, deterministic: bool) -> Mapping[str, Reference]:
        """What to measure on the tasks of an evaluation beside the learner's curve, by name."""
        return {}

    def _known_tasks(self, split: Split, num_tasks: int) -> Record | None:
        """The tasks of a split on which to evaluate, where they are no fresh ones."""
        return None

    def _trained_points(self, learner: Agent[Any, Any]) -> int:
        """How many points of the adaptation curve training has."""
        return self.num_points

    def state_dict(self, *, to_train: bool = True) -> dict[str, Any]:
        state: dict[str, Any] = {"num_diverged": self.num_diverged}
        return {**state, "sampler": self.sampler.state_dict()} if to_train else state

    def load_state_dict(self, state: Mapping[str, Any], *, to_train: bool = True) -> None:
        self.num_diverged = state["num_diverged"]
        if to_train:
            self.sampler.load_state_dict(state.get("sampler", {}))  # older checkpoints have none

    def _count_diverged(self, env: VectorEnv) -> dict[str, float]:
        """The number that diverged in an environment since it was last counted in; empty if it cannot diverge.

        An environment that another one was counted in after must be counted in no more.
        """
        count: int | None = getattr(env, "num_diverged", None)
        if count is None:
            return {}
        last_env, last = self._counted
        new = round(total_number(count - (last if env is last_env else 0)))
        self._counted = (env, count)
        self.num_diverged += new
        return {"rollout/num_diverged": float(new)}

    def _check_scale(self, trajectory: Trajectory[Any]) -> None:
        """Warn if the observations of the first trajectory are badly scaled."""
        if not self._scale_is_unknown:
            return
        self._scale_is_unknown = False
        line = scale_warning(trajectory.obs[trajectory.valid])
        if line is not None and process_index() == 0:
            with contextlib.suppress(OSError, ValueError):  # a stderr that is full or closed ends no training
                print(f"metarl: {line}", file=sys.stderr)


class TrialSource(ActingSource):
    """Runs a trial in each of `num_tasks` fresh training tasks, in `copies` rows each.

    An agent that adapts after blocks of episodes has one row per episode of a block in each task, and one copy.
    """

    records_steps = True
    score_tag = "meta_train/return/total"

    def __init__(
        self,
        config: AgentConfig,
        family: TaskFamily,
        train: TrainConfig,
        generators: Mapping[str, torch.Generator],
    ) -> None:
        super().__init__(config, family, train, generators)
        self._record = cuda_graph if train.graphs and generators["policy"].device.type == "cuda" else None
        self._adapts_in_blocks = False  # whether each trajectory of a trial is one point of the curve

    def make_learner(self, num_iterations: int) -> Agent[Any, Any]:
        """A fresh agent; also makes its training environment.

        Raises:
            ValueError: when an agent that adapts after blocks of episodes has several copies, or a trial is longer
                than the memory can read.
        """
        config = self._config
        longest, num_steps = getattr(config, "max_trial_steps", None), self.num_points * self.family.horizon
        if longest is not None and num_steps > longest:
            raise ValueError(f"a trial has {num_steps} steps; this agent's memory can read at most {longest}")
        agent = self._make_agent(num_iterations)
        if agent.block is not None and self.copies != 1:
            name, block = type(agent).__name__, agent.block
            raise ValueError(
                f"copies is {self.copies}; must be 1, because {name} runs {block} episodes of a task in parallel"
            )
        self.measure, self._adapts_in_blocks = measure_of(agent), agent.block is not None
        with sharing(self.num_tasks) as share:
            rows = share.size * self.copies * rows_per_task(agent)
        steps = self.family.horizon * (self.num_points if agent.block is None else agent.training_blocks or 1)
        check_trajectory_memory(self.family, rows, steps, self._privileged_size)
        self.env = self.training_env(rows, self._generators["env"])
        return agent

    def training_env(self, num_rows: int, generator: torch.Generator) -> VectorEnv:
        """An environment that shows all that a learner sees in training, which may be more than in evaluations."""
        return shown(self._critic_sees, self.family.make_env(num_rows, generator))

    def draw(self, learner: Agent[Any, Any]) -> Draw[Trial]:
        """A trial in training tasks that the sampler proposes; before it, those that it only wants to be scored.

        Raises:
            FloatingPointError: when an observation or a reward is not finite; names the task and the step.
        """
        amount, points, share = 0, 1 if self._adapts_in_blocks else self.num_points, current() or Share(self.num_tasks)
        while True:
            tasks = self.sampler.propose(self.num_tasks, self._generators["task"])
            trial = self._run(learner, tasks, share)
            amount += round(total_number(_num_steps(trial)))
            own = cat([TrialScores.of(trajectory, share.size, points) for trajectory in trial])
            scores = share.gathered(own, dim=1)
            chosen = self.sampler.report(tasks, self._task_scores(scores))
            if self.sampler.learns:
                return Draw(trial, amount, {**self._metrics(trial, scores), **chosen})

    def _first_state(self, learner: Agent[Any, Any], num_tasks: int) -> Any:
        """The agent's state at the start of a trial in so many tasks; None: its prior."""
        return None

    def _run(self, learner: Agent[Any, Any], tasks: Record, share: Share) -> Trial:
        """A trial in each of this process's tasks."""
        trial, num_points = [], self._trained_points(learner)
        with share.noise():
            state, generator = self._first_state(learner, share.size), self._generators["policy"]
            run = run_trial(
                self.env, learner, share.own(tasks), num_points, generator=generator, state=state, record=self._record
            )
            for trajectory in run:
                self._check_scale(trajectory)
                trial.append(trajectory)
        align(self._generators["env"], self._generators["policy"])
        return trial

    def _task_scores(self, scores: TrialScores) -> Tensor:
        """The score of each task [N]: the sum over the trial, or the last point where points do not add up."""
        return scores.returns.sum(0) if self.measure.adds_up else scores.returns[-1]

    def _metrics(self, trial: Trial, scores: TrialScores) -> dict[str, float]:
        measured = by_point("meta_train", mean_metrics(self.env, scores.metrics), self.measure)
        return {**self._return_metrics(trial, scores), **measured, **self._count_diverged(self.env)}

    def _return_metrics(self, trial: Trial, scores: TrialScores) -> dict[str, float]:
        returns = scores.returns.mean(1)  # [points]
        points = logged_points(self.measure, len(returns))
        metrics = {f"meta_train/{self.measure.tag}{k}": float(returns[k - self.measure.first]) for k in points}
        metrics[self.score_tag] = float(returns.sum() if self.measure.adds_up else returns[-1])
        metrics |= tail_metrics("meta_train/return", Tail.of(self._task_scores(scores), higher_is_better=True))
        metrics["rollout/ep_rew_mean"] = float(returns.mean())
        num_episodes = sum(int((trajectory.episode_start & trajectory.valid).sum()) for trajectory in trial)
        metrics["rollout/ep_len_mean"] = total_number(_num_steps(trial)) / total_number(num_episodes)
        return metrics

    def _trained_points(self, learner: Agent[Any, Any]) -> int:
        return self.num_points if learner.training_blocks is None else learner.training_blocks


def check_trajectory_memory(family: TaskFamily, rows: int, steps: int, privileged_size: int = 0) -> None:
    """Refuse iterations whose trajectories cannot fit the memory, if every episode is as long as it may be.

    Raises:
        ValueError: saying how much they need.
    """
    space = family.action_space
    action_size = 1 if isinstance(space, spaces.Discrete) else space.shape[0]
    numbers = 2 * family.observation_space.shape[0] + action_size + 4 + privileged_size
    check_memory(f"an iteration of {rows:,} rows x {steps:,} steps in {family.name}", float(rows) * steps * numbers)


def scale_warning(obs: Tensor) -> str | None:
    """The warning about observations [K, O]; None where their scale is fine, or they are all zero."""
    size = obs.double().square().mean(0).sqrt()  # [O]
    if not bool(size.isfinite().all()) or not len(size):
        return None
    entry = int(size.argmax())
    largest = float(size[entry])
    if largest == 0 or SMALLEST <= largest <= LARGEST:
        return None
    return (
        f"the largest of the {len(size)} observed numbers, entry {entry}, has a root mean square of {largest:.3g}; "
        "networks learn best where it is near 1, which --agent.normalise-obs True sees to"
    )


def _num_steps(trial: Trial) -> int:
    return sum(trajectory.num_steps for trajectory in trial)
