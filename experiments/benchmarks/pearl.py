"""PEARL: gradient steps compared with a plain reference at the published sizes, and collection in many rows with one.

Gradient steps: 16 tasks x 256 transitions, contexts of 100, three layers of 300 (the encoder: 200), on the half
cheetah's sizes; the reference is experiments/benchmarks/pearl_reference.py, whose posteriors and critics are compared
with ours, on the same weights, before anything is timed. It multiplies by torch's default library, as a plain program
does; beside that, by the one that ours chooses (metarl/torch_settings.py). Collection: half_cheetah_vel, by a policy of
the published size, many rows against our one row, and against a loop over one environment of Gymnasium with batches
of one, as public code has it. Times are compared as in experiments/benchmarks/harness.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import torch

from agents.pearl import PEARL, PEARLConfig
from envs.locomotion.half_cheetah import HalfCheetahVel
from experiments.benchmarks.harness import Result, interleave, ratios, report, timed
from experiments.benchmarks.pearl_reference import Reference
from metarl.records import by_task
from metarl.rl.replay import Replay, Transition
from metarl.rl.rollouts import collect
from metarl.torch_settings import fast_matmul, keeps_float32

FAST_REFERENCE = "reference, our matmul"
TARGETS = {"reference / ours": 1.5, "loop / many rows": 10.0}  # smallest ratio of times, relative to ours


@dataclass(frozen=True)
class Settings:
    """The size of a benchmark."""

    config: PEARLConfig = field(default_factory=lambda: PEARLConfig(capacity=2000))
    num_rows: int = 400  # number of rows: 100 training tasks in four copies
    horizon: int = 200
    num_rounds: int = 7
    num_steps: int = 3  # number of gradient steps per round

    def __post_init__(self) -> None:
        for name in ("num_rows", "horizon", "num_rounds", "num_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; must be at least 1")


def run(settings: Settings | None = None) -> Result:
    """Measure everything: seconds of a gradient step and of an environment's step, ratios, and what was asked for."""
    is_full = settings is None
    settings = Settings() if settings is None else settings
    family = HalfCheetahVel(horizon=settings.horizon)
    obs_size, num_actions = family.observation_space.shape[0], family.action_space.shape[0]
    reference = Reference(settings.config, obs_size, num_actions, settings.config.capacity, seed=0)
    agent, replay = same_agent(settings.config, family, reference)
    _check_agreement(agent, reference)
    steps = _gradient_steps(agent, replay, reference)
    single = gymnasium.make("HalfCheetah-v5", max_episode_steps=settings.horizon)
    collecting = _collecting(agent, reference, family, single, settings)
    measured = {name: timed(step, settings.num_steps) for name, step in steps.items()}
    rounds = interleave(measured | collecting, settings.num_rounds)
    single.close()
    compared = ("reference / ours", f"{FAST_REFERENCE} / ours", "one row / many rows", "loop / many rows")
    return Result(
        "pearl",
        settings,
        dict.fromkeys(steps, "s/gradient step") | dict.fromkeys(collecting, "s/env-step"),
        rounds,
        ratios(rounds, compared),
        asked=TARGETS if is_full else {},
        details={"threads": torch.get_num_threads(), "chooses_matmul": keeps_float32()},
    )


def _gradient_steps(agent: PEARL, replay: Replay, reference: Reference) -> dict[str, Callable[[], None]]:
    """Ours, the reference's, and the reference's with the library that ours chooses."""
    generator = torch.Generator().manual_seed(0)
    return {
        "ours": lambda: step(agent, replay, generator),
        "reference": reference.gradient_step,
        FAST_REFERENCE: fast_matmul()(reference.gradient_step),
    }


def _collecting(
    agent: PEARL, reference: Reference, family: HalfCheetahVel, single: gymnasium.Env[Any, Any], settings: Settings
) -> dict[str, Callable[[], float]]:
    """Seconds of an environment's step: in one row, in many, and in a loop over one environment of Gymnasium."""
    generator = torch.Generator().manual_seed(0)

    def rows(num_rows: int) -> Callable[[], float]:
        env = family.make_env(num_rows, generator)

        def measure() -> float:
            tasks = family.sample(num_rows, "train", generator)
            started = time.perf_counter()
            num_steps = collect(env, agent, tasks, 1, generator=generator).num_steps
            return (time.perf_counter() - started) / num_steps

        return measure

    def loop() -> float:
        started = time.perf_counter()
        num_steps = reference.collect(single, settings.horizon)
        return (time.perf_counter() - started) / num_steps

    return {"one row": rows(1), "many rows": rows(settings.num_rows), "loop": loop}


def step(agent: PEARL, replay: Replay, generator: torch.Generator) -> None:
    """One repetition of the loop in `PEARL.update`."""
    config = agent.config
    tasks = torch.randint(config.num_train_tasks, (config.meta_batch,), generator=generator)
    agent.gradient_step(replay, tasks, generator)


def same_agent(config: PEARLConfig, family: HalfCheetahVel, reference: Reference) -> tuple[PEARL, Replay]:
    """Our agent with the reference's weights (those that both have), and its data in replay."""
    generator = torch.Generator().manual_seed(0)
    agent = config.make(family.observation_space, family.action_space, num_iterations=1, generator=generator)
    with torch.no_grad():
        for ours, theirs in zip(agent.encoder.parameters(), reference.encoder.parameters(), strict=True):
            ours.copy_(theirs)
        twins = zip(*(critic.parameters() for critic in reference.critics), strict=True)
        for ours, theirs in zip(agent.sac.critics.parameters(), twins, strict=True):
            ours.copy_(torch.stack(theirs))
    tensors = {
        name: torch.stack([torch.from_numpy(task[name]) for task in reference.tasks]) for name in reference.tasks[0]
    }
    reward = tensors["reward"].squeeze(-1)
    data = Transition(tensors["obs"], tensors["action"], reward, reward, tensors["next_obs"], reward > torch.inf)
    valid = torch.ones_like(reward, dtype=torch.bool)
    replay = Replay(
        config.num_train_tasks,
        config.capacity,
        tensors["obs"].shape[-1],
        tensors["action"].shape[-1],
        max_gigabytes=config.max_gigabytes,
    )
    replay.add(torch.arange(config.num_train_tasks), data, valid, recent=True)
    return agent, replay


def _check_agreement(agent: PEARL, reference: Reference) -> None:
    """Check that posteriors and critic values agree for the same weights and data.

    Raises:
        AssertionError: when they differ.
    """
    context = reference.draw([0, 1, 2], agent.config.context)
    items = torch.cat([context["obs"], context["action"], context["reward"]], -1)
    with torch.no_grad():
        posterior = agent.belief.posterior(agent.belief.adapt(agent.belief.prior(3), items))
        for task, theirs in enumerate(reference.posteriors(context)):
            torch.testing.assert_close(posterior.mean[task], theirs.mean, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(posterior.log_std[task].exp(), theirs.stddev, rtol=1e-3, atol=1e-5)
        obs, action = (by_task(context[name], 1)[0] for name in ("obs", "action"))
        latent = posterior.mean[:1].expand(len(obs), -1)
        ours = agent.sac.values(agent.sac.critics, torch.cat([obs, latent], -1), action)
        for value, critic in zip(ours, reference.critics, strict=True):
            theirs = critic(torch.cat([obs, latent, action], -1)).squeeze(-1)
            torch.testing.assert_close(value, theirs, rtol=1e-3, atol=1e-4)


def main(json: bool = False) -> None:
    """Print times and ratios; one JSON object where that is asked for."""
    report(run(), json)
