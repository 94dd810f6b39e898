"""Collection of experience, in the only loop that steps environments."""

from __future__ import annotations

import contextlib
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metarl.errors import EnvironmentFailed, UserError
from metarl.parallel import anywhere, in_step
from metarl.protocols import Agent, EpisodesOfOneLength, PosteriorSampling, VectorEnv
from metarl.records import Decision, Record, Step, Trajectory, describe, stack
from metarl.rl.step_graph import CannotRecordError, Carries, Recorder, StepGraph
from metarl.torch_settings import torch_threads

D = TypeVar("D", bound=Decision)

_LIBRARIES = {"torch", "numpy", "gymnasium", "mujoco", *sys.stdlib_module_names}  # whose functions somebody else calls


def collect(
    env: VectorEnv,
    agent: Agent[Any, D],
    tasks: Record,
    num_episodes: int,
    *,
    generator: torch.Generator | None,
    state: Any = None,
    record: Recorder | None = None,
) -> Trajectory[D]:
    """Run `num_episodes` episodes in every row of the environment, starting from the given agent state.

    tasks: leading axis N, which divides the environment's B rows. state: the agent's state for these tasks and rows;
    None for its prior. generator: for sampled actions; None for the policy's mode. record: how a step becomes a graph
    that is replayed (`metarl.rl.step_graph`); None: it does not.

    Rows that have finished their episodes are not simulated further and are marked not valid. All rows start their
    trial at index 0.

    Raises:
        ValueError: when num_episodes is below one.
        EnvironmentFailed: when the environment raises anything, or gives tensors of another shape than it must; names
            the function, the step and the tasks.
        FloatingPointError: when an observation, a reward or an action is not finite; names the task and the step.
        CannotRecordError: when a step is to become a graph and cannot.
    """
    if num_episodes < 1:
        raise ValueError(f"num_episodes is {num_episodes}; must be at least 1")
    steps: list[tuple[Step, D, Step, Tensor]] = []
    # While native physics threads occupy the cores, a policy on the CPU is fastest with one thread.
    with torch.inference_mode(), torch_threads(1), contextlib.ExitStack() as stack:
        step = _stepped(env, tasks, 0, lambda: env.reset(tasks))
        length = _num_steps(env, num_episodes)
        together = stack.enter_context(in_step(length is None))
        if state is None:
            state = agent.prior(len(tasks), env.num_rows // len(tasks))
        state = agent.observe(state, None, step)
        draws = agent if isinstance(agent, PosteriorSampling) else None
        if draws is not None:
            state = draws.resample_latent(state, torch.ones_like(step.terminated), generator)
        episodes_left = torch.full((env.num_rows,), num_episodes, device=env.device)
        active = episodes_left > 0
        all_active = any_active = True
        sync_every = _steps_between_syncs(env.device)
        if record is not None:
            steps = _replayed(env, agent, (state, step, episodes_left), length, generator, record)
            any_active = False
        while any_active:
            before = step
            decision = agent.act(state, before.obs, generator)
            action, simulated = decision.action, None if all_active else active
            if sync_every == 1 and action.is_floating_point() and not math.isfinite(float(action.sum())):
                _check_before_step(step, action, active, tasks, len(steps))
            step = _stepped(env, tasks, len(steps), lambda: env.step(action, simulated))  # noqa: B023, called at once
            state = agent.observe(state, decision.action, step)
            steps.append((before, decision, step, active))
            episode_end = step.episode_end
            if sync_every > 1 or anywhere(episode_end):
                if draws is not None:
                    state = draws.resample_latent(state, episode_end, generator)
                episodes_left = episodes_left - episode_end.long()
                active = episodes_left > 0
                all_active = sync_every == 1 and bool(active.all())
            if length is not None and sync_every > 1:
                any_active = len(steps) < length
            elif together or (not all_active and len(steps) % sync_every == 0):
                any_active = anywhere(active)
    trajectory = _as_trajectory(steps, length if sync_every > 1 or record is not None else None)
    numbers = {"observation": trajectory.obs, "next observation": trajectory.next_obs, "reward": trajectory.reward}
    if trajectory.privileged is not None:
        numbers["privileged observation"] = trajectory.privileged
    check_finite({**numbers, "action": trajectory.decision.action}, trajectory.valid, tasks)
    return trajectory


def _stepped(env: VectorEnv, tasks: Record, number: int, call: Callable[[], Step]) -> Step:
    """What a call of the environment returns, after a look at its shapes.

    Raises:
        EnvironmentFailed, FloatingPointError: as `collect`.
    """
    try:
        step = call()
    except UserError:
        raise
    except FloatingPointError as error:
        raise FloatingPointError(f"{error}, at step {number}") from error
    except Exception as error:  # whatever an environment or a user's function in it raises
        raise EnvironmentFailed(f"{raised(error)}, at step {number} in {describe(tasks)}") from error
    rows, obs_shape = (env.num_rows,), (env.num_rows, *env.observation_space.shape)
    shapes = {"obs": obs_shape, "next_obs": obs_shape, "reward": rows, "terminated": rows, "truncated": rows}
    for name, shape in shapes.items():
        value = getattr(step, name)
        if not isinstance(value, Tensor) or value.shape != shape:
            form = f"has shape {list(value.shape)}" if isinstance(value, Tensor) else f"is a {type(value).__name__}"
            must = f"must be a tensor of shape {list(shape)}, at step {number} in {describe(tasks)}"
            raise EnvironmentFailed(f"{name} of the environment {form}; {must}")
    return step


def raised(error: BaseException) -> str:
    """What was raised and by which function, in one line; functions of libraries are passed over for their caller."""
    text = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if str(frame.f_globals.get("__name__")).split(".")[0] not in _LIBRARIES:
            return f"{frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}, line {line}) raises {text}"
    return text


def _check_before_step(step: Step, action: Tensor, active: Tensor, tasks: Record, number: int) -> None:
    """Name what is not finite where an action is not: the observation or the reward that led to it, if they are not.

    Raises:
        FloatingPointError: when any of them is not finite in an active row; names the task and the step.
    """
    numbers = {"observation": step.obs, "reward before the action": step.reward, "action": action}
    check_finite({name: value[None] for name, value in numbers.items()}, active[None], tasks, first_step=number)


def check_finite(numbers: Mapping[str, Tensor], valid: Tensor, tasks: Record, *, first_step: int = 0) -> None:
    """Refuse numbers that nothing can be learned from: each [T, B] or [T, B, size], where valid [T, B] is true.

    first_step: the number of the first of the T steps.

    Raises:
        FloatingPointError: when one is not finite; names the task and the step.
    """
    for name, value in numbers.items():
        finite = value.isfinite() if value.ndim == 2 else value.isfinite().flatten(2).all(-1)
        bad = ~finite & valid
        if bool(bad.any()):
            step, row = bad.nonzero()[0].tolist()
            task = " ".join(str(tasks[row // (bad.shape[1] // len(tasks))]).split())
            raise FloatingPointError(
                f"{name} at step {first_step + step} of row {row} is not finite; its task is {task}"
            )


def run_trial(
    env: VectorEnv,
    agent: Agent[Any, D],
    tasks: Record,
    num_points: int,
    *,
    generator: torch.Generator | None,
    state: Any = None,
    record: Recorder | None = None,
) -> Iterator[Trajectory[D]]:
    """Run a trial: blocks of episodes, with the agent adapting in between.

    num_points: points of the adaptation curve: episodes for an agent whose whole trial is one block, otherwise blocks.
    The environment has `rows_per_task` rows per task, or a divisor of that. Other arguments: as for `collect`.

    Raises:
        ValueError: when num_points is below one, or the episodes of a block do not spread evenly over the rows.
    """
    if num_points < 1:
        raise ValueError(f"num_points is {num_points}; must be at least 1")
    copies = env.num_rows // len(tasks)
    if agent.block is None:
        yield collect(env, agent, tasks, num_points, generator=generator, state=state, record=record)
        return
    if agent.block % copies:
        raise ValueError(f"{agent.block} episodes of a block do not spread evenly over {copies} rows of each task")
    state = agent.prior(len(tasks), copies) if state is None else state
    for point in range(num_points):
        num_episodes = agent.block // copies
        trajectory = collect(env, agent, tasks, num_episodes, generator=generator, state=state, record=record)
        yield trajectory
        if point < num_points - 1:
            state = agent.adapt(state, trajectory)


def rows_per_task(agent: Agent[Any, Any]) -> int:
    """Rows per task that run all episodes of a block in parallel."""
    return 1 if agent.block is None else agent.block


def _steps_between_syncs(device: torch.device) -> int:
    """Steps between checks whether all trials are over; on an accelerator each check forces a synchronisation."""
    return 1 if device.type == "cpu" else 64


def _replayed(
    env: VectorEnv,
    agent: Agent[Any, D],
    start: tuple[Any, Step, Tensor],
    length: int | None,
    generator: torch.Generator | None,
    record: Recorder,
) -> list[tuple[Step, D, Step, Tensor]]:
    """The steps of a rollout as a graph; start: the agent's state, the environment's step, and the episodes left [B].

    Raises:
        CannotRecordError: when the length is not known before, or a step depends on more than tensors.
    """
    if length is None or not isinstance(env, Carries):
        raise CannotRecordError(
            "a step of this family cannot be recorded as a graph: "
            + ("its episodes may end early" if length is None else "it depends on more than tensors")
        )
    draws = agent if isinstance(agent, PosteriorSampling) else None

    def one(carry: Any) -> tuple[Any, Any]:
        (state, before, episodes_left), env.carried = carry
        active = episodes_left > 0
        decision = agent.act(state, before.obs, generator)
        step = env.step(decision.action, active)
        state = agent.observe(state, decision.action, step)
        if draws is not None:
            state = draws.resample_latent(state, step.episode_end, generator)
        after = state, step, episodes_left - step.episode_end.long()
        return (after, env.carried), (before, decision, step, active)

    generators = {id(source): source for source in (env.generator, generator) if source is not None}
    graph = StepGraph(one, (start, env.carried), length, list(generators.values()), record)
    results = graph.run()
    return [pytree.tree_map_only(Tensor, lambda value, t=t: value[t], results) for t in range(length)]


def _num_steps(env: VectorEnv, num_episodes: int) -> int | None:
    """The steps in which all rows have their episodes, if that is known before; a divergence can only shorten them."""
    each = env.steps_per_episode if isinstance(env, EpisodesOfOneLength) else None
    return None if each is None else num_episodes * each


def _as_trajectory(steps: list[tuple[Step, D, Step, Tensor]], num_steps: int | None) -> Trajectory[D]:
    """Stack the steps over time, outside inference mode because the result may enter an autograd graph.

    num_steps: those until the last trial's end, after which steps are dropped; None: not known, so they are counted.
    """
    before, decisions, results, active = zip(*steps, strict=True)
    valid = torch.stack(active)
    num_steps = int(valid.any(1).sum()) if num_steps is None else num_steps
    before, results, valid = before[:num_steps], results[:num_steps], valid[:num_steps]
    terminated = torch.stack([result.terminated for result in results])
    truncated = torch.stack([result.truncated for result in results])
    trial_start = torch.zeros_like(valid)
    trial_start[0] = True
    return Trajectory(
        obs=torch.stack([step.obs for step in before]),
        decision=stack(decisions[:num_steps]),
        reward=torch.stack([result.reward for result in results]),
        next_obs=torch.stack([result.next_obs for result in results]),
        terminated=terminated,
        truncated=truncated,
        episode_start=torch.cat([trial_start[:1], (terminated | truncated)[:-1]]) & valid,
        trial_start=trial_start,
        valid=valid,
        metrics=_stacked("metrics", results),
        privileged=_stacked("privileged", before),
    )


def _stacked(name: str, steps: Sequence[Step]) -> Tensor | None:
    """An optional field of steps over time [T, B, ...]; None where no step has it.

    Raises:
        ValueError: when only some of the steps have it.
    """
    values = [getattr(step, name) for step in steps]
    if all(value is None for value in values):
        return None
    if any(value is None for value in values):
        raise ValueError(f"{name} is None at one step of the environment; must be given at every step or at none")
    return torch.stack(values)
