"""What a meta-learner holds of each of many tasks, point by point of its adaptation, beside the tasks' parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from envs.rows import close
from experiments.workbench.insight.known import Known, known_of
from experiments.workbench.insight.watching import Watched
from metarl.errors import UserError
from metarl.evaluation import measure_of
from metarl.fewshot.episode import FewShotFamily, ShowsStates
from metarl.protocols import ShowsState, Split, TaskFamily
from metarl.records import Record, Trajectory, cat
from metarl.rl.rollouts import collect, rows_per_task
from metarl.trainer import Trainer


@dataclass(frozen=True)
class TaskStates:
    """The states of N tasks before any data and after each of P points, as vectors, and what can be known of each."""

    point: str  # unit of the points
    vectors: Tensor  # [P + 1, N, D] float64
    parameters: dict[str, Tensor]  # parameters of the tasks by name, [N, ...] each
    attention: list[list[float]] | None  # mean weights of past steps, at each point [P + 1][steps]; None: no attention
    known: dict[str, Known]  # exact knowledge from the same data, by parameter, where a family tells it


def task_states(trainer: Trainer, split: Split, num_tasks: int, num_points: int, seed: int) -> TaskStates:
    """Adapt to fresh tasks of a split; all randomness comes from the seed.

    Raises:
        UserError: when the learner does not show its state, or the tasks have no parameters.
        ValueError: when the family does not declare the split.
    """
    generator = torch.Generator(trainer.device).manual_seed(seed)
    if isinstance(trainer.family, FewShotFamily):
        return _of_learner(trainer, split, num_tasks, num_points, generator)
    return _of_agent(trainer.family, trainer.agent, split, num_tasks, num_points, generator)


def parameters_of(tasks: Record | None) -> dict[str, Tensor]:
    """The tensors of a task record by name; those of records inside as "outer.inner"."""
    found: dict[str, Tensor] = {}
    for name, value in {} if tasks is None else vars(tasks).items():
        if isinstance(value, Tensor):
            found[name] = value.detach().cpu()
        elif isinstance(value, Mapping):
            found |= {f"{name}.{key}": inner.detach().cpu() for key, inner in value.items()}
        elif isinstance(value, Record):
            found |= {f"{name}.{inner}": tensor for inner, tensor in parameters_of(value).items()}
    return found


def check_shows_state(agent: Any) -> None:
    """Check that an agent has the methods of `ShowsState`.

    Raises:
        UserError: when it has not.
    """
    if not isinstance(agent, ShowsState):
        raise UserError(
            f"{type(agent).__name__} does not show its state: it has no methods state_vectors and states_of"
        )


def _of_learner(
    trainer: Trainer, split: Split, num_tasks: int, num_points: int, generator: torch.Generator
) -> TaskStates:
    learner: Any = trainer.agent
    source: Any = trainer.source
    if not isinstance(trainer.agent, ShowsStates):
        raise UserError(f"{trainer.agent_name} does not show its state; it has no method state_vectors")
    vectors, tasks = [], []
    for episode in source.test_episodes(learner, split, num_tasks, generator, num_points):
        if episode.tasks is None:
            raise UserError(f"tasks of {trainer.family.name} are images, without parameters to probe for")
        tasks.append(episode.tasks)
        vectors.append(learner.state_vectors(episode, num_points).detach().cpu().double())
    return TaskStates(learner.point, torch.cat(vectors, 1), parameters_of(cat(tasks)), None, {})


def _of_agent(
    family: TaskFamily, agent: Any, split: Split, num_tasks: int, num_points: int, generator: torch.Generator
) -> TaskStates:
    check_shows_state(agent)
    tasks = family.sample(num_tasks, split, generator)
    env = family.make_env(num_tasks * rows_per_task(agent), generator)
    try:
        trial, vectors, attention = _watched_trial(env, agent, tasks, num_points, generator)
    finally:
        close(env)
    one_row = trial[0].reward.shape[1] == num_tasks  # else rows of a task would have to be merged
    known = known_of(family, cat(trial)) if one_row else {}
    return TaskStates(measure_of(agent).point, vectors.double(), parameters_of(tasks), attention, known)


def _watched_trial(
    env: Any, agent: Any, tasks: Record, num_points: int, generator: torch.Generator
) -> tuple[list[Trajectory[Any]], Tensor, list[list[float]] | None]:
    """A trial's blocks, the states before any data and after each point [num_points + 1, N, D], and the attention."""
    if agent.block is None:
        watched: Any = Watched(agent, len(tasks), num_points)
        trajectory = collect(env, watched, tasks, num_points, generator=generator)
        return [trajectory], watched.vectors, watched.attention
    state = agent.prior(len(tasks), rows_per_task(agent))
    trial, vectors = [], [agent.state_vectors(state).detach().cpu()]
    for _ in range(num_points):
        trial.append(collect(env, agent, tasks, agent.block // rows_per_task(agent), generator=generator, state=state))
        state = agent.adapt(state, trial[-1])
        vectors.append(agent.state_vectors(state).detach().cpu())
    return trial, torch.stack(vectors), None
