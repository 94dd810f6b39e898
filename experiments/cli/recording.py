"""One agent in one task, watched step by step, for a video or in MuJoCo's viewer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from envs.catalog import FAMILIES, make
from envs.locomotion.reward_terms import ENDED_BY, REWARD
from envs.rows import close
from experiments.cli.video import AnimatedImage, Mp4, captioned
from metarl.errors import UserError
from metarl.evaluation import run_trials
from metarl.protocols import Agent, Measures, Renders, TaskFamily, VectorEnv
from metarl.records import Record, Step
from metarl.rl.rollouts import rows_per_task

MAX_FPS = 25.0  # frame rate limit of a video: robots step faster, and rendering costs more than steps
SECONDS_BETWEEN_EPISODES = 0.8  # pause at the end of an episode


@dataclass(frozen=True)
class Moment:
    """The current position in a trial."""

    episode: int  # from one
    step: int  # of the episode; zero before the first
    episode_return: float  # so far
    earlier_returns: tuple[float, ...]  # of the episodes before this one
    episode_end: bool
    terminated: bool = False  # whether the episode has ended before its time, e.g. by a fall
    measured: tuple[tuple[str, float], ...] = ()  # names and values of what the family measures, e.g. speeds


class WatchedEnv:
    """Rows of a family on the CPU, the first shown to `watch` at the start and after every step; a `VectorEnv`.

    The agent's tensors may live on another device. Episodes are counted across resets, as agents that adapt between
    blocks of episodes are given a fresh start of the environment for each block.
    """

    def __init__(self, env: VectorEnv, device: torch.device, watch: Callable[[Moment], None]) -> None:
        self.num_rows, self.device = env.num_rows, device
        self.observation_space: spaces.Box = env.observation_space
        self.action_space: spaces.Box | spaces.Discrete = env.action_space
        self._env, self._watch = env, watch
        self._moment = Moment(1, 0, 0.0, (), False)

    @property
    def returns(self) -> tuple[float, ...]:
        """Of the episodes that are over."""
        return self._moment.earlier_returns

    def reset(self, tasks: Record) -> Step:
        step = self._env.reset(tasks.to("cpu"))
        self._watch(self._moment)
        return step.to(self.device)

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        step = self._env.step(action.cpu(), None if active is None else active.cpu())
        if active is not None and not bool(active[0]):  # the trial is over, which on an accelerator is noticed late
            return step.to(self.device)
        before = self._moment
        reached, end = before.episode_return + float(step.reward[0]), bool(step.episode_end[0])
        measured = tuple(self._measured(step))
        now = Moment(
            before.episode, before.step + 1, reached, before.earlier_returns, end, bool(step.terminated[0]), measured
        )
        self._watch(now)
        self._moment = Moment(now.episode + 1, 0, 0.0, (*now.earlier_returns, reached), False) if end else now
        return step.to(self.device)

    def _measured(self, step: Step) -> Iterator[tuple[str, float]]:
        """What the family measured in the first row in this step."""
        if step.metrics is None or not isinstance(self._env, Measures):
            return
        for name, value in zip(self._env.metric_names, step.metrics[0].tolist(), strict=True):
            if not math.isnan(value):
                yield name, value


@dataclass(frozen=True)
class Recording:
    """A recorded video."""

    path: Path
    returns: tuple[float, ...]  # by episode
    animated_image: bytes  # a small version, as a GIF
    image_size: tuple[int, int]  # of the GIF: width, height


def visible_env(family: TaskFamily, seed: int = 0, num_rows: int = 1) -> Any:
    """Rows of a family that can be seen, on the CPU; their randomness comes from the seed.

    Raises:
        UserError: when the family cannot be rendered, or not on this machine.
    """
    generator = torch.Generator().manual_seed(seed)
    if not hasattr(family, "make_env"):
        raise UserError(f"{family.name} cannot be rendered: its tasks are functions, and nothing acts in them")
    env = family.make_env(num_rows, generator)
    if not isinstance(env, Renders):
        seen = ", ".join(name for name in FAMILIES if isinstance(make(name).make_env(1, generator), Renders))
        raise UserError(f"{family.name} cannot be rendered; those that can are {seen}")
    env.reset(family.sample(1, "train", torch.Generator().manual_seed(seed)))
    try:
        env.render()
    except RuntimeError as error:
        raise UserError(str(error)) from error
    generator.manual_seed(seed)
    return env


def record(
    family: TaskFamily,
    agent: Agent[Any, Any],
    task: Record,
    num_episodes: int,
    path: Path,
    *,
    device: torch.device | str = "cpu",
    seed: int = 0,
    deterministic: bool = False,
) -> Recording:
    """Record a trial of an agent in `task` (leading axis 1), starting from its prior.

    The video has one episode per point of the adaptation curve, i.e. one of each block.
    device: the agent's. All randomness comes from the seed; no random stream of a training is touched.

    Raises:
        UserError: when the family cannot be seen, or the file cannot be written.
    """
    env = visible_env(family, seed, rows_per_task(agent))
    stride = max(1, round(1 / (MAX_FPS * env.seconds_per_step)))
    fps = 1 / (env.seconds_per_step * stride)
    small, pause = AnimatedImage(fps), round(SECONDS_BETWEEN_EPISODES * fps)
    title = f"{family.name}   {describe(task)}"

    with Mp4(path, fps) as mp4:

        def watch(moment: Moment) -> None:
            if moment.step % stride and not moment.episode_end:
                return
            frame = captioned(env.render(), caption(title, moment, num_episodes, family.horizon))
            for _ in range(1 + pause * moment.episode_end):
                mp4.add(frame)
                small.add(frame)

        returns = play(env, agent, task, num_episodes, watch, device=device, seed=seed, deterministic=deterministic)
    close(env)
    return Recording(path, returns, small.encoded(), small.size)


def play(
    env: VectorEnv,
    agent: Agent[Any, Any],
    task: Record,
    num_episodes: int,
    watch: Callable[[Moment], None],
    *,
    device: torch.device | str = "cpu",
    seed: int = 0,
    deterministic: bool = False,
) -> tuple[float, ...]:
    """Run a trial in a task while `watch` sees every step of the first row; returns that row's episode returns."""
    generator = torch.Generator(device).manual_seed(seed)
    watched = WatchedEnv(env, generator.device, watch)
    tasks = task.to(generator.device)
    run_trials(watched, agent, tasks, num_episodes, generator=None if deterministic else generator)
    return watched.returns


def caption(title: str, moment: Moment, num_episodes: int, horizon: int) -> list[str]:
    """Three lines: the task and what is measured now; the episode with its return so far; earlier episodes."""
    measured = "   ".join(
        f"{name.replace('_', ' ')} {value:.2f}"
        for name, value in moment.measured
        if not name.startswith((REWARD, ENDED_BY))  # of whole episodes
    )
    reasons = [name.replace("_", " ") for name, value in moment.measured if name.startswith(ENDED_BY) and value]
    end = f"    {', '.join(reasons) or 'ended early'}" if moment.terminated else ""
    now = f"episode {moment.episode} of {num_episodes}    step {moment.step} of {horizon}{end}"
    earlier = "   ".join(f"episode {n}: {value:.1f}" for n, value in enumerate(moment.earlier_returns, start=1))
    return [
        f"{title}   now: {measured}" if measured else title,
        f"{now}    return {moment.episode_return:.1f}",
        earlier,
    ]


def describe(task: Record) -> str:
    """A task (leading axis 1) in a few words: short fields with their values, long ones with their range."""
    words = []
    for name, value in vars(task).items():
        numbers = value[0].flatten().tolist() if isinstance(value, Tensor) else []
        if len(numbers) == 1:
            words.append(f"{name} {numbers[0]:.3g}")
        elif 1 < len(numbers) <= 3:
            words.append(f"{name} ({', '.join(f'{number:.2g}' for number in numbers)})")
        elif numbers:
            words.append(f"{name} {min(numbers):.2g} to {max(numbers):.2g}")
    return "   ".join(words)
