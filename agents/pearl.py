"""PEARL: soft actor-critic on a belief about the task, inferred from context that replay keeps apart.

Rakelly et al. Efficient off-policy meta-reinforcement learning via probabilistic context variables (2019).

An encoder turns each transition of a context into a vote for the latent z, and their product is the belief
(metarl/adaptation/context.py). The policy and the critics read z beside the observation. The encoder learns through the
critics and from an information bottleneck, the belief's divergence from the prior; the policy reads z as it is given.

Meta-test: a fresh z of the prior in each of the first `num_exploration_episodes`, then one of the belief after all that
was seen, which is absorbed after each episode; the policy acts by its mode.

Deviations: 1. two critics with slow copies, and no value net; the temperature may be learned. The published fixed one
is temperature 1 with the rewards scaled up. 2. `kl_weight` weighs the mean over tasks of the divergence (summed over z)
against the mean over tasks of the critics' errors, so that it does not depend on the number of tasks in a batch. The
published code sums over tasks: its 0.1 with 16 tasks is 1.6 here. 3. the observation of the next step may enter the
context for any family. 4. weights begin orthogonal, the policy's last layer times `actor_gain`; in the published code
they are uniform.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from agents.soft_actor_critic import SoftActorCritic
from metarl.adaptation.context import Aggregation, Belief, ContextBelief, factor_size
from metarl.checks import at_least, in_range, not_negative, positive
from metarl.nets.matmul import fast_matmul
from metarl.nets.mlp import Activation, mlp
from metarl.optim import gradient_step
from metarl.protocols import TaskFamily
from metarl.records import Decision, Step, Trajectory, by_task
from metarl.rl.replay import Replay, Transition
from metarl.rl.replay_source import ReplaySource
from metarl.source import TrainConfig

Experience = Trajectory[Decision]

_COUNTS = ("latent_size", "num_train_tasks", "initial_episodes", "prior_episodes", "num_gradient_steps")
_SIZES = ("meta_batch", "batch", "context", "capacity")
_AMOUNTS = ("posterior_episodes", "extra_episodes", "num_exploration_episodes")


@dataclass(frozen=True)
class PEARLConfig:
    """Settings of PEARL; the defaults are those published for the half cheetah's velocities."""

    latent_size: int = 5  # size of z, the latent task variable
    aggregation: Aggregation = "product"
    hidden_sizes: tuple[int, ...] = (300, 300, 300)  # hidden layers of the policy and the critics
    encoder_sizes: tuple[int, ...] = (200, 200, 200)  # hidden layers of the context encoder
    activation: Activation = "relu"  # nonlinearity of the hidden layers
    next_obs_in_context: bool = False  # whether the encoder reads next observations, for families whose physics differ
    num_train_tasks: int = 100
    initial_episodes: int = 10  # in each training task before all else; in episodes: metarl/rl/replay_source.py
    prior_episodes: int = 2  # episodes from the prior in each task of an iteration
    posterior_episodes: int = 0  # episodes from the posterior in each task of an iteration
    extra_episodes: int = 3  # episodes from the posterior that are left out of contexts, per task
    num_exploration_episodes: int = 2  # episodes from the prior at meta-test, before z comes from the posterior
    capacity: int = 50_000  # transitions per task in the replay; the published million is never filled
    max_gigabytes: float = 8.0  # most memory that the replay may take, in GB
    num_gradient_steps: int = 2000  # gradient steps per iteration
    meta_batch: int = 16  # tasks per gradient step
    batch: int = 256  # transitions per task and gradient step
    context: int = 100  # transitions per task that the belief is inferred from
    gamma: float = 0.99  # discount factor
    tau: float = 0.005  # Polyak step of the target critics towards the critics, per gradient step
    learning_rate: float = 3e-4  # step size of every Adam optimiser
    reward_scale: float = 5.0  # factor on the rewards that the critics learn from
    shaped_reward: str | None = None  # a metric of the family that the critics learn from; None: the reward
    temperature: float | None = 1.0  # weight of the entropy (SAC); None: learned
    kl_weight: float = 1.6  # weight of the KL divergence of the belief from the prior
    regularisation: float = 1e-3  # penalty on the squares of the policy's outputs
    actor_gain: float = 0.01  # gain of the fresh policy's last layer; if large, each z acts differently from the start

    def __post_init__(self) -> None:
        at_least(self, 1, *_COUNTS, *_SIZES, "hidden_sizes", "encoder_sizes")
        at_least(self, 0, *_AMOUNTS)
        positive(self, "learning_rate", "reward_scale", "temperature", "actor_gain")
        not_negative(self, "kl_weight", "regularisation")
        in_range(self, 0, 1, "gamma")
        if not 0 < self.tau <= 1:
            raise ValueError(f"tau is {self.tau}; must be in (0, 1]")

    def make_source(
        self, family: TaskFamily, train: TrainConfig, generators: Mapping[str, torch.Generator]
    ) -> ReplaySource:
        """Episodes in a fixed set of training tasks, kept in a replay."""
        return ReplaySource(self, family, train, generators)

    def make(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        *,
        num_iterations: int,
        generator: torch.Generator,
    ) -> PEARL:
        """A fresh agent.

        Raises:
            ValueError: when actions are discrete.
        """
        if not isinstance(action_space, spaces.Box):
            raise ValueError(f"action_space is {action_space}; PEARL needs a Box of continuous actions")
        return PEARL(self, observation_space, action_space, generator=generator)


PEARL_TWO_CORES = PEARLConfig(  # what recipes for robots have in place of the published settings, on two cores
    hidden_sizes=(128, 128),
    encoder_sizes=(100, 100),
    extra_episodes=4,
    batch=64,
    context=64,
    learning_rate=1e-3,
    tau=0.01,
    reward_scale=1.0,
    temperature=0.2,
)


@dataclass(frozen=True)
class PEARLState:
    """What is believed of N tasks, and what their rows act on."""

    belief: Belief  # [N, ...] of all that was absorbed
    source: Belief  # [N, ...] what z is drawn from: the prior, while exploring
    latent: Tensor  # [B, Z] that the rows act on in this episode
    num_absorbed: int = 0  # episodes
    stochastic: bool = False  # whether actions are drawn, as in collection, or the policy's mode


class PEARL:
    """The agent; its source collects for it and owns the replay that `update` learns from."""

    block: int | None = 1
    training_blocks: int | None = None

    def __init__(
        self,
        config: PEARLConfig,
        observation_space: spaces.Box,
        action_space: spaces.Box,
        *,
        generator: torch.Generator,
    ) -> None:
        self.config = config
        obs_size, num_actions, device = observation_space.shape[0], action_space.shape[0], generator.device
        item_size = obs_size + num_actions + 1 + (obs_size if config.next_obs_in_context else 0)
        sizes = (item_size, *config.encoder_sizes, factor_size(config.latent_size, config.aggregation))
        self.encoder = mlp(sizes, activation=config.activation, output_gain=1.0, generator=generator)
        self.sac = SoftActorCritic(
            obs_size + config.latent_size,
            config.hidden_sizes,
            action_space,
            activation=config.activation,
            gamma=config.gamma,
            temperature=config.temperature,
            regularisation=config.regularisation,
            actor_gain=config.actor_gain,
            generator=generator,
        )
        self.belief = ContextBelief(
            self.encoder,
            latent_size=config.latent_size,
            aggregation=config.aggregation,
            device=device,
        )
        self._critic_params = [*self.encoder.parameters(), *self.sac.critics.parameters()]
        self._actor_params = list(self.sac.actor.parameters())
        groups = {"critic": self._critic_params, "actor": self._actor_params}
        if self.sac.learns_temperature:
            groups["temperature"] = [self.sac.log_temperature]
        self.optimizers = {
            name: torch.optim.Adam(params, lr=config.learning_rate, fused=True) for name, params in groups.items()
        }
        self.num_updates = 0  # gradient steps

    # --- acting -----------------------------------------------------------------------------------------------

    def prior(self, num_tasks: int, copies: int = 1) -> PEARLState:
        """Nothing seen; z is the prior's mean until `resample_latent` draws one."""
        belief = self.belief.prior(num_tasks)
        return PEARLState(belief, belief, self.belief.latent(belief).repeat_interleave(copies, 0))

    def resample_latent(
        self, state: PEARLState, episode_start: Tensor, generator: torch.Generator | None
    ) -> PEARLState:
        """A fresh z for each row that begins an episode; without a generator, the belief's mean."""
        copies = len(episode_start) // len(state.source)
        drawn = self.belief.latent(state.source.repeat_interleave(copies), generator)
        return replace(state, latent=torch.where(episode_start[:, None], drawn, state.latent))

    def observe(self, state: PEARLState, action: Tensor | None, step: Step) -> PEARLState:
        """Nothing is learned within an episode."""
        return state

    def act(self, state: PEARLState, obs: Tensor, generator: torch.Generator | None) -> Decision:
        distribution = self.sac.actor(torch.cat([obs, state.latent], -1))
        stochastic = state.stochastic and generator is not None
        return Decision(self.sac.actor.to_env(distribution.sample(generator) if stochastic else distribution.mode))

    @torch.no_grad()
    def adapt(self, state: PEARLState, trajectory: Experience) -> PEARLState:
        """The belief after a block of episodes; z comes from it once exploration is over."""
        num_tasks = len(state.belief)
        items = self._items(Transition.of(trajectory, trajectory.reward, num_tasks))
        belief = self.belief.adapt(state.belief, items, by_task(trajectory.valid, num_tasks))
        num_absorbed = state.num_absorbed + 1
        source = state.source if num_absorbed < self.config.num_exploration_episodes else belief
        return replace(state, belief=belief, source=source, num_absorbed=num_absorbed)

    # --- collecting (metarl/rl/replay_source.py) -----------------------------------------------------------------

    @torch.no_grad()
    def collecting(self, num_tasks: int, copies: int, context: Transition | None) -> PEARLState:
        """The state to collect in tasks: z from the prior, or from the posterior given a context [N, K, ...]."""
        state = replace(self.prior(num_tasks, copies), stochastic=True)
        if context is None:
            return state
        belief = self._infer(context)
        return replace(state, belief=belief, source=belief)

    def _items(self, data: Transition) -> Tensor:
        """What the encoder reads of transitions: [..., item]."""
        next_obs = [data.next_obs] if self.config.next_obs_in_context else []
        return torch.cat([data.obs, self.sac.actor.from_env(data.action), data.reward.unsqueeze(-1), *next_obs], -1)

    def _infer(self, context: Transition) -> Belief:
        """The belief about tasks from transitions [N, K, ...] of each."""
        return self.belief.adapt(self.belief.prior(len(context)), self._items(context))

    # --- learning ---------------------------------------------------------------------------------------------

    def update(self, replay: Replay, generator: torch.Generator) -> dict[str, float]:
        """Gradient steps on what the replay holds.

        Raises:
            FloatingPointError: when a loss is not finite.
        """
        config, device = self.config, replay.device
        totals: dict[str, Tensor] = {}
        for _ in range(config.num_gradient_steps):
            tasks = torch.randint(config.num_train_tasks, (config.meta_batch,), generator=generator, device=device)
            for name, value in self.gradient_step(replay, tasks, generator).items():
                totals[name] = totals.get(name, 0.0) + value
        metrics = {f"train/{name}": float(total) / config.num_gradient_steps for name, total in totals.items()}
        for name in ("train/critic_loss", "train/actor_loss"):
            if not math.isfinite(metrics[name]):
                raise FloatingPointError(f"{name} is {metrics[name]} after {self.num_updates} gradient steps")
        return metrics | {"train/num_gradient_steps": float(self.num_updates)}

    @fast_matmul()
    def gradient_step(self, replay: Replay, tasks: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """One step of critics and encoder, of the policy and of the temperature, on training tasks [M]."""
        data = replay.sample(tasks, self.config.batch, generator)  # [M, K, ...]
        belief = self._infer(replay.sample(tasks, self.config.context, generator, recent=True))
        losses = self.critic_losses(data, belief, generator)
        self._step("critic", losses.loss)
        loss, log_prob = self.sac.actor_loss(losses.features, generator)
        self._step("actor", loss)
        if self.sac.learns_temperature:
            self._step("temperature", self.sac.temperature_loss(log_prob))
        self.sac.polyak_update(self.config.tau)
        self.num_updates += 1
        return {
            "critic_loss": losses.critic.detach(),
            "divergence": losses.divergence.detach(),
            "actor_loss": loss.detach(),
            "entropy": -log_prob,
            "temperature": self.sac.log_temperature.detach().exp(),
            "latent_size": self.belief.latent(belief).detach().square().mean().sqrt(),
        }

    def critic_losses(self, data: Transition, belief: Belief, generator: torch.Generator) -> CriticLosses:
        """What critics and encoder should lower on transitions [M, K, ...] of tasks with these beliefs."""
        config, rows = self.config, data.map(lambda value: value.flatten(0, 1))
        latent = self.belief.latent(belief, generator).repeat_interleave(data.reward.shape[1], 0)  # [M K, Z]
        features = torch.cat([rows.obs, latent], -1)
        next_features = torch.cat([rows.next_obs, latent.detach()], -1)
        reward = config.reward_scale * rows.shaped_reward
        target = self.sac.targets(reward, rows.terminated, next_features, generator)
        critic = self.sac.critic_loss(features, self.sac.actor.from_env(rows.action), target)
        divergence = self.belief.divergence(belief).mean() if self.belief.is_random else critic.new_zeros(())
        return CriticLosses(critic + config.kl_weight * divergence, critic, divergence, features.detach())

    def _step(self, name: str, loss: Tensor) -> None:
        gradient_step(self.optimizers[name], loss)

    # --- saving -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "encoder": self.encoder.state_dict(),
            "sac": self.sac.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "num_updates": self.num_updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.encoder.load_state_dict(state["encoder"])
        self.sac.load_state_dict(state["sac"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.num_updates = state["num_updates"]


@dataclass(frozen=True)
class CriticLosses:
    """What a gradient step's first half came to."""

    loss: Tensor  # [], of critics and encoder
    critic: Tensor  # [], the part without the bottleneck
    divergence: Tensor  # [], mean over tasks, in nats
    features: Tensor  # [M K, F] that the policy reads: z without a gradient
