"""The outer loop: draw trials from tasks of the family, update the meta-learner, again and again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from metarl.evaluation import Evaluation, evaluate, mean_metrics
from metarl.protocols import AgentConfig, Split, TaskFamily
from metarl.records import Trajectory
from metarl.rollouts import collect

if TYPE_CHECKING:
    from metarl.run import Run

_STREAMS = ("initialisation", "task", "env", "policy", "update")  # one generator each, all from one seed
_EVALUATION_SEED = 1_000_003  # of the held-out tasks: the same ones for every run, whatever its seed


@dataclass(frozen=True)
class TrainConfig:
    """How long to meta-train and on how much."""

    num_iterations: int
    num_tasks: int  # N, fresh tasks per iteration
    copies: int = 1  # E, rows per task
    num_episodes: int | None = None  # in a trial; None: the family's own number
    eval_every: int = 50  # iterations between evaluations on held-out tasks; 0: only at the end
    eval_tasks: int = 100
    checkpoint_every: int = 25

    def __post_init__(self) -> None:
        for name in ("num_iterations", "num_tasks", "copies", "eval_tasks", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.num_episodes is not None and self.num_episodes < 1:
            raise ValueError(f"num_episodes is {self.num_episodes}; it must be at least 1")
        if self.eval_every < 0:
            raise ValueError(f"eval_every is {self.eval_every}; it must be 0 (only at the end) or more")


class Trainer:
    """A meta-learner, the tasks that it meets and everything that an exact resume needs."""

    def __init__(
        self,
        family: TaskFamily,
        agent_config: AgentConfig,
        config: TrainConfig,
        *,
        agent_name: str,
        seed: int,
        device: str = "cpu",
    ) -> None:
        self.family, self.config, self.agent_name = family, config, agent_name
        self.num_episodes = family.num_episodes if config.num_episodes is None else config.num_episodes
        seeds = np.random.SeedSequence(seed).generate_state(len(_STREAMS), np.uint64).tolist()
        self.generators = {
            name: torch.Generator(device).manual_seed(stream_seed % 2**63)
            for name, stream_seed in zip(_STREAMS, seeds, strict=True)
        }
        self.agent = agent_config.make(
            family.observation_space,
            family.action_space,
            num_iterations=config.num_iterations,
            generator=self.generators["initialisation"],
        )
        self.env = family.make_env(config.num_tasks * config.copies, self.generators["env"])
        self.device = device
        self.iteration = 0
        self.env_steps = 0
        self.num_diverged = 0  # simulations that were reset because they diverged, where environments count them
        self.seconds = 0.0  # of meta-training, without evaluations
        self.best_return = -math.inf  # the highest mean return of a window of iterations between two checkpoints
        self._diverged_before = 0  # in this trainer's environment, up to the last iteration
        self._window: list[float] = []  # returns of whole trials, by iteration since the last checkpoint

    def iterate(self) -> dict[str, float]:
        """One meta-iteration; returns its metrics by their logged tags."""
        started = time.perf_counter()
        trajectory = self._draw()
        diverged = self._count_diverged()
        drawn = time.perf_counter()
        metrics = self.agent.update(trajectory, self.generators["update"])
        ended = time.perf_counter()
        num_steps = trajectory.num_steps
        returns = _return_metrics(trajectory, self.num_episodes)
        measured = mean_metrics(self.env, trajectory.episode_metrics(self.num_episodes))
        self._window.append(returns["meta_train/return/total"])
        self.iteration += 1
        self.env_steps += num_steps
        self.seconds += ended - started
        return {
            **returns,
            **_by_episode("meta_train", measured),
            **metrics,
            **diverged,
            "time/fps": num_steps / (ended - started),
            "time/collect_fps": num_steps / (drawn - started),
            "time/collect_share": (drawn - started) / (ended - started),
            "time/time_elapsed": self.seconds,
            "time/iterations": float(self.iteration),
            "time/total_timesteps": float(self.env_steps),
        }

    def _draw(self) -> Trajectory[Any]:
        """A trial in fresh training tasks, with the finite rewards that learning needs.

        Raises:
            FloatingPointError: when a reward is not finite; names the task and the step.
        """
        tasks = self.family.sample(self.config.num_tasks, "train", self.generators["task"])
        trajectory = collect(self.env, self.agent, tasks, self.num_episodes, generator=self.generators["policy"])
        bad = (~torch.isfinite(trajectory.reward)) & trajectory.valid
        if bool(bad.any()):
            step, row = bad.nonzero()[0].tolist()
            task = tasks[row // self.config.copies]
            raise FloatingPointError(f"reward at step {step} of row {row} is not finite; its task is {task}")
        return trajectory

    def _count_diverged(self) -> dict[str, float]:
        """How many simulations diverged in this iteration; nothing where an environment cannot diverge."""
        total: int | None = getattr(self.env, "num_diverged", None)
        if total is None:
            return {}
        found, self._diverged_before = total - self._diverged_before, total
        self.num_diverged += found
        return {"rollout/num_diverged": float(found)}

    def evaluate(
        self, split: Split = "test", num_tasks: int | None = None, num_episodes: int | None = None, seed: int = 0
    ) -> Evaluation:
        """The adaptation curve on held-out tasks; the training's own random streams are left as they are."""
        return evaluate(
            self.family,
            self.agent,
            agent_name=self.agent_name,
            split=split,
            num_tasks=self.config.eval_tasks if num_tasks is None else num_tasks,
            num_episodes=self.num_episodes if num_episodes is None else num_episodes,
            generator=torch.Generator(self.device).manual_seed(_EVALUATION_SEED + seed),
        )

    def close_window(self) -> bool:
        """Start a new window of iterations; whether the last one was the best so far, on training tasks."""
        mean = sum(self._window) / max(len(self._window), 1)
        is_best = bool(self._window) and mean > self.best_return
        self.best_return = mean if is_best else self.best_return
        self._window = []
        return is_best

    def state_dict(self) -> dict[str, Any]:
        return {
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "num_diverged": self.num_diverged,
            "seconds": self.seconds,
            "best_return": self.best_return,
            "window": list(self._window),
            "agent": self.agent.state_dict(),
            "generators": {name: generator.get_state() for name, generator in self.generators.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.iteration = state["iteration"]
        self.env_steps = state["env_steps"]
        self.num_diverged = state.get("num_diverged", 0)  # absent from the first checkpoints
        self.seconds = state["seconds"]
        self.best_return = state["best_return"]
        self._window = list(state["window"])
        self.agent.load_state_dict(state["agent"])
        for name, generator_state in state["generators"].items():
            self.generators[name].set_state(generator_state.cpu())


def train(
    trainer: Trainer, run: Run, progress: Callable[[Trainer, Mapping[str, float]], None] = lambda *_: None
) -> Evaluation:
    """Meta-train from the trainer's iteration to the last one, logging and saving into the run; then evaluate.

    `best` is the checkpoint with the highest return over a window of training tasks: test tasks choose nothing.
    """
    config = trainer.config
    evaluation = None
    while trainer.iteration < config.num_iterations:
        metrics = trainer.iterate()
        is_last = trainer.iteration == config.num_iterations
        evaluation = None
        if is_last or (config.eval_every and trainer.iteration % config.eval_every == 0):
            evaluation = trainer.evaluate()
            metrics |= _evaluation_metrics(evaluation)
        run.log(metrics, trainer.env_steps)
        progress(trainer, metrics)
        if is_last or trainer.iteration % config.checkpoint_every == 0:
            is_best = trainer.close_window()
            run.save("latest", trainer.state_dict())
            if is_best:
                run.save("best", trainer.state_dict())
    if evaluation is None:
        evaluation = trainer.evaluate()
    run.save_evaluation(evaluation)
    return evaluation


def _return_metrics(trajectory: Trajectory[Any], num_episodes: int) -> dict[str, float]:
    returns = trajectory.episode_returns(num_episodes).mean(1)  # [num_episodes]
    metrics = {f"meta_train/return/ep_{k}": float(returns[k - 1]) for k in logged_episodes(num_episodes)}
    metrics["meta_train/return/total"] = float(returns.sum())
    metrics["rollout/ep_rew_mean"] = float(returns.mean())
    metrics["rollout/ep_len_mean"] = trajectory.num_steps / (num_episodes * trajectory.valid.shape[1])
    return metrics


def _evaluation_metrics(evaluation: Evaluation) -> dict[str, float]:
    episodes = evaluation.episodes
    metrics = {f"meta_test/return/ep_{k}": episodes[k - 1].mean for k in logged_episodes(len(episodes))}
    metrics["meta_test/return/total"] = evaluation.total.mean
    metrics["meta_test/iqm"] = episodes[-1].iqm
    return metrics | _by_episode("meta_test", evaluation.metrics)


def _by_episode(prefix: str, metrics: Mapping[str, list[float]]) -> dict[str, float]:
    """The family's own metrics by their logged tags, such as "meta_test/velocity_error/ep_1"."""
    return {
        f"{prefix}/{name}/ep_{k}": values[k - 1]
        for name, values in metrics.items()
        for k in logged_episodes(len(values))
    }


def logged_episodes(num_episodes: int) -> list[int]:
    """The episodes, counted from one, that get a curve of their own: all of a few, else 1, 2, 5, 10, 20, ..."""
    if num_episodes <= 10:
        return list(range(1, num_episodes + 1))
    series = [digit * 10**power for power in range(len(str(num_episodes))) for digit in (1, 2, 5)]
    return [k for k in series if k < num_episodes] + [num_episodes]
