"""Kernels that a GPU would be asked to launch per environment step and per update, counted on any machine.

Small networks leave a GPU idle while the host asks for the next kernel: the number of launches says how long a step
takes there, and the number of waits for a result how often the host cannot run ahead. Recipes collect and learn at
their own sizes on torch's device "meta", whose tensors have shapes but no numbers. Code that asks for a number is
answered as if nothing were wrong (no entry of a mask is true in "any", all are in "all"), and the question counts as a
wait.

What is assumed of a GPU:

- An operation is one launch, unless it is a view or an allocation.
- A layer of nn.GRU or nn.LSTM is cuDNN's: two launches per step, a product and the gates, and as many backward; a cell
  is two products and the gates.
- A simulation step is one launch, since mujoco_warp's kernels are recorded as a graph; the engine's own time is not
  part of the estimate.
- A launch takes the host `eager_microseconds`, or the device `graph_microseconds` where the whole is one CUDA graph,
  and a wait takes `wait_microseconds`. These three are typical of torch on recent GPUs, and were not measured here.
"""

from __future__ import annotations

import importlib.util
import json as json_format
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from agents.pearl import PEARL
from experiments.benchmarks.harness import machine
from experiments.benchmarks.launch_counter import META, Counter, Counts, OnMeta, counting
from experiments.experiment.definition import Experiment, load
from metarl.checks import positive
from metarl.protocols import VectorEnv
from metarl.records import Record, Step
from metarl.rl.replay import Replay
from metarl.rl.rollouts import run_trial

RECIPES = (
    "grid_navi/rl2",
    "grid_navi/rl2_snail",
    "grid_navi/rl2_transformer",
    "point_navigation/maml_trpo",
    "point_navigation/promp",
    "semicircle/pearl",
    "half_cheetah_dir/rl2",
    "half_cheetah_dir/promp",
    "half_cheetah_vel/pearl",
)
PEARL_STEPS = 10  # gradient steps that count as an update of PEARL


@dataclass(frozen=True)
class Settings:
    """What is counted, and the assumed costs."""

    recipes: tuple[str, ...] = RECIPES
    eager_microseconds: float = 8.0  # the host's time for a launch
    graph_microseconds: float = 1.5  # the device's time for a launch within a CUDA graph
    wait_microseconds: float = 30.0  # the host's time for a wait

    def __post_init__(self) -> None:
        positive(self, "eager_microseconds", "graph_microseconds", "wait_microseconds")

    def milliseconds(self, launches: float, waits: float) -> float:
        """The host's time, without graphs."""
        return (launches * self.eager_microseconds + waits * self.wait_microseconds) / 1000


@dataclass(frozen=True)
class Counted:
    """What a recipe's agent asks of a GPU."""

    step_launches: float  # per environment step of all rows, in a rollout
    step_waits: float
    update: Counts


def count_of(experiment: Experiment[Any, Any]) -> Counted:
    """What the agent of an experiment asks of a GPU, at its own sizes."""
    family, config, train, generator = OnGpu(experiment.family), experiment.agent, experiment.train, OnMeta()
    with counting() as counter:
        agent = config.make(family.observation_space, family.action_space, num_iterations=10, generator=generator)
        tasks = family.sample(train.num_tasks, "train", generator)
        num_rows = train.num_tasks * (train.copies if agent.block is None else agent.block)
        env: Any = Watched(family.make_env(num_rows, generator), family.horizon, counter)
        num_points = agent.training_blocks or train.num_points or family.num_episodes
        experience: Any = list(run_trial(env, agent, tasks, num_points, generator=generator))
        if isinstance(agent, PEARL):
            agent.config = replace(config, num_gradient_steps=PEARL_STEPS)
            experience = _replay(agent, family)
        before = counter.counts
        agent.update(experience, generator)
        num_launches, waits = env.per_step()
        return Counted(num_launches, waits, counter.counts - before)


def _replay(agent: Any, family: Any) -> Any:
    sizes = family.observation_space.shape[0], family.action_space.shape[0]
    return Replay(agent.config.num_train_tasks, 100, *sizes, max_gigabytes=1.0, device=META)


class Watched:
    """An environment whose episodes all have the same length, and the counts before each of its steps."""

    def __init__(self, env: Any, steps_per_episode: int, counter: Counter) -> None:
        self._env, self.steps_per_episode, self._counter = env, steps_per_episode, counter
        self._counts: list[Counts] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, tasks: Record) -> Step:
        self._counts.clear()
        return self._env.reset(tasks)

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        self._counts.append(self._counter.counts)
        return self._env.step(action, active)

    def per_step(self) -> tuple[float, float]:
        """Launches and waits from one step to the next, in the last rollout."""
        both, number = self._counts[-1] - self._counts[0], len(self._counts) - 1
        return both.launches / number, both.waits / number


class OnGpu:
    """A family whose environments run on the device "meta" as on a GPU."""

    def __init__(self, family: Any) -> None:
        self._family = family

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def make_env(self, num_rows: int, generator: torch.Generator) -> VectorEnv:
        if not hasattr(self._family, "body"):
            return self._family.make_env(num_rows, generator)
        from envs.locomotion.mujoco_env import MujocoEnv
        from experiments.benchmarks.physics_on_meta import PhysicsOnMeta

        return MujocoEnv(self._family, PhysicsOnMeta(self._family.body, num_rows), generator)


def run(settings: Settings | None = None) -> dict[str, Counted]:
    """The counts of all recipes, but for those of robots where mujoco_warp is not installed."""
    settings = Settings() if settings is None else settings
    experiments = {recipe: load(recipe) for recipe in settings.recipes}
    has_engine = importlib.util.find_spec("mujoco_warp") is not None
    return {
        recipe: count_of(experiment)
        for recipe, experiment in experiments.items()
        if has_engine or not hasattr(experiment.family, "body")
    }


def main(json: bool = False) -> None:
    """Print counts and estimated times; one JSON object where that is asked for."""
    settings = Settings()
    counted = run(settings)
    if json:
        counts = {recipe: asdict(one) for recipe, one in counted.items()}
        facts = {"benchmark": "launches", "machine": machine(), "settings": asdict(settings)}
        print(json_format.dumps({**facts, "counted": counts}))
        return
    from rich.console import Console

    from experiments.cli.tables import print_table

    rows = []
    for recipe, one in counted.items():
        step = settings.milliseconds(one.step_launches, one.step_waits)
        graph = settings.graph_microseconds * one.step_launches / 1000
        update = settings.milliseconds(one.update.launches, one.update.waits)
        counts = f"{one.step_launches:.0f}", f"{one.step_waits:g}", f"{step:.2f}", f"{graph:.2f}"
        rows.append((recipe, *counts, f"{one.update.launches:,}", f"{one.update.waits:,}", f"{update:,.0f}"))
    columns = ("recipe", "launches per step", "waits", "ms", "ms as one graph", "launches per update", "waits", "ms")
    print_table("what a GPU's host would do", columns, rows, Console(), text=("recipe",))
    if len(counted) < len(settings.recipes):
        print("The recipes of robots are left out: mujoco-warp is not installed: pip install 'metarl[gpu]'")
