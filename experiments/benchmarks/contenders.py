"""Our contenders in the simulation benchmark: rollouts with a policy, and the engine alone.

All policies have 2 x 64 tanh units, Gaussian samples and their log-probabilities, without memory or learning.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from envs.locomotion.mujoco_env import MujocoEnv
from envs.simulators import make_physics
from envs.simulators.state import State
from metarl.nets.distributions import DiagonalGaussian
from metarl.nets.mlp import ACTIVATIONS, PolicyHead
from metarl.records import Record, SampledDecision, Step, Trajectory
from metarl.rl.rollouts import collect

NEAR_NOMINAL = 0.004  # relative deviation of per-task masses, damping and friction from the body's own


@dataclass(frozen=True)
class Contender:
    """Something whose speed is measured."""

    name: str
    num_rows: int
    measure: Callable[[int], tuple[int, float]]  # number of episodes -> environment steps, seconds
    close: Callable[[], Any]


class MemorylessAgent:
    """One policy for all rows or, with `num_tasks`, one per task; implements `metarl.protocols.Agent`."""

    block: int | None = None
    training_blocks: int | None = None

    def __init__(self, family: Any, generator: torch.Generator, num_tasks: int | None = None) -> None:
        self._generator = generator
        self._num_tasks = num_tasks
        self._policies = [self._make(family) for _ in range(num_tasks or 1)]
        self._policy = self._policies[0]
        self._activation = ACTIVATIONS["tanh"]()
        linear = [[layer for layer in policy.net if isinstance(layer, torch.nn.Linear)] for policy in self._policies]
        self._layers = [
            (
                torch.stack([layer.weight.detach().T for layer in layers]).contiguous(),  # [N, in, out]
                torch.stack([layer.bias.detach()[None] for layer in layers]),  # [N, 1, out]
            )
            for layers in zip(*linear, strict=True)
        ]

    def _make(self, family: Any) -> PolicyHead:
        sizes = (family.observation_space.shape[0], 64, 64)
        return PolicyHead(sizes, family.action_space, activation="tanh", init_std=1.0, generator=self._generator)

    def prior(self, num_tasks: int, copies: int = 1) -> None:
        return None

    def observe(self, state: None, action: Tensor | None, step: Step) -> None:
        return None

    def act(self, state: None, obs: Tensor, generator: torch.Generator | None) -> SampledDecision:
        distribution: Any = self._policy(obs) if self._num_tasks is None else self._by_task(obs)
        action = distribution.mode if generator is None else distribution.sample(generator)
        return SampledDecision(self._policy.to_env(action), distribution.log_prob(action))

    def _by_task(self, obs: Tensor) -> DiagonalGaussian:
        """The distributions of all tasks' policies in one batched matrix product."""
        features = obs.view(len(self._policies), -1, obs.shape[-1])  # [N, E, O]
        for index, (weight, bias) in enumerate(self._layers):
            features = torch.baddbmm(bias, features, weight)
            if index < len(self._layers) - 1:
                features = self._activation(features)
        return DiagonalGaussian(features.view(len(obs), -1), self._policy.log_std)

    def adapt(self, state: None, trajectory: Trajectory[SampledDecision]) -> None:
        return None

    def update(self, trial: Sequence[Trajectory[SampledDecision]], generator: torch.Generator) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return self._policy.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._policy.load_state_dict(dict(state))

    def sample(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The policy for peers' environments: action [B, A] and its log-probability [B]."""
        decision = self.act(None, obs, self._generator)
        return decision.action, decision.log_prob


class Dynamics:
    """A family with the body's own physics, or with slightly different physics per task.

    The difference is small enough to leave the solver's work unchanged, so the cost of per-task fields is measured. A
    robot that falls stays down until the time limit, so rollouts simulate the same steps as the engine alone.
    """

    def __init__(self, family: Any, per_task: bool) -> None:
        self._family = family
        self._per_task = per_task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def physics(self, tasks: Record, nominal: Callable[[str], Tensor]) -> Mapping[str, Tensor]:
        if not self._per_task:
            return {}
        names = ("body_mass", "body_inertia", "dof_damping", "geom_friction")
        fields = {name: nominal(name) for name in names}
        scale = 1 + NEAR_NOMINAL * torch.linspace(-1, 1, len(tasks), dtype=torch.float64).to(fields[names[0]].device)
        return {name: torch.einsum("b,...->b...", scale, value) for name, value in fields.items()}

    def terminated(self, state: State, tasks: Record) -> Tensor | None:
        """None: the ends are computed, without effect."""
        ends = self._family.terminated(state, tasks)
        return None if ends is None else ends & False

    def make_env(self, num_rows: int, generator: torch.Generator) -> MujocoEnv[Any]:
        family: Any = self
        return MujocoEnv(family, make_physics(self.body, num_rows, generator.device), generator)


def closed_loop(
    name: str, family: Any, rows: int, copies: int, agent: MemorylessAgent, generator: torch.Generator
) -> Contender:
    """Our rollout, as training runs it: reset with new tasks, act, step, reward, store, stack."""
    env = family.make_env(rows, generator)

    def measure(num_episodes: int) -> tuple[int, float]:
        tasks: Record = family.sample(rows // copies, "train", generator)
        start = _now(generator.device)
        trajectory = collect(env, agent, tasks, num_episodes, generator=generator)
        seconds = _now(generator.device) - start
        return trajectory.num_steps, seconds

    return Contender(name, rows, measure, lambda: None)


def limit(name: str, family: Any, rows: int, generator: torch.Generator) -> Contender:
    """The C engine alone; its resets and controls are prepared before the clock starts."""
    from mujoco.batch import Batch

    from envs.simulators.cpu import suitable_threads
    from envs.simulators.model import load_model

    batch = Batch(load_model(family.body), rows, suitable_threads(rows))
    qpos, qvel, ctrl = batch.bind("qpos"), batch.bind("qvel"), batch.bind("ctrl")
    start_qpos, start_qvel = _starts(family, torch.from_numpy(qpos), torch.from_numpy(qvel), generator)
    controls = _controls(family, rows, generator).double().numpy()

    def measure(num_episodes: int) -> tuple[int, float]:
        seconds = 0.0
        for _ in range(num_episodes):
            batch.reset()
            qpos[...], qvel[...] = start_qpos.numpy(), start_qvel.numpy()
            start = time.perf_counter()
            for step in range(family.horizon):
                ctrl[...] = controls[step % len(controls)]
                batch.step(None, family.frame_skip)
            seconds += time.perf_counter() - start
        return num_episodes * family.horizon * rows, seconds

    return Contender(name, rows, measure, lambda: None)


def gpu_limit(name: str, family: Any, rows: int, generator: torch.Generator) -> Contender:
    """The engine of the generator's device alone, through `envs.simulators`."""
    physics = make_physics(family.body, rows, generator.device)
    controls = _controls(family, rows, generator)
    start_qpos, start_qvel = _starts(family, physics.qpos, physics.qvel, generator)

    def measure(num_episodes: int) -> tuple[int, float]:
        seconds = 0.0
        for _ in range(num_episodes):
            physics.reset(start_qpos, start_qvel)
            start = _now(generator.device)
            for step in range(family.horizon):
                physics.step(controls[step % len(controls)], family.frame_skip)
            seconds += _now(generator.device) - start
        return num_episodes * family.horizon * rows, seconds

    return Contender(name, rows, measure, lambda: None)


def _starts(family: Any, qpos: Tensor, qvel: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Initial states of episodes, sampled by the family around the body's own position and velocity."""
    tasks = family.sample(len(qpos), "train", generator)
    return family.initial_state(tasks, qpos.clone(), qvel.clone(), generator)


def _controls(family: Any, rows: int, generator: torch.Generator) -> Tensor:
    """Controls [16, B, A] sampled from an untrained policy."""
    low, high = (torch.as_tensor(limit) for limit in (family.action_space.low, family.action_space.high))
    low, high = low.to(generator.device), high.to(generator.device)
    noise = torch.randn(16, rows, len(low), generator=generator, device=generator.device).clamp(-1, 1)
    return (low + high) / 2 + (high - low) / 2 * noise


def _now(device: torch.device) -> float:
    """The time in seconds, after waiting for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
