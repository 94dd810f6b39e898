"""PEARL: soft actor-critic conditioned on a belief about the task, inferred from context in a separate replay window.

Rakelly et al. Efficient off-policy meta-reinforcement learning via probabilistic context variables (2019).

An encoder maps each transition of a context to a Gaussian factor over the latent z; the product of the factors is the
belief (metarl/adaptation/context.py). The policy and the critics read z and the observation. The encoder is trained by
the critics' loss and an information bottleneck, the belief's KL divergence from the prior; the policy's loss does not
reach it.

Meta-test: z is sampled from the prior in each of the first `num_exploration_episodes`, then from the belief, which
absorbs every episode when it ends; the policy acts by its mode.

Discrete actions use the critics and losses of agents/discrete_soft_actor_critic.py.

Deviations: 1. two critics with target copies, and no value net; the temperature may be learned. The published code has
a fixed temperature of 1 and scaled rewards. 2. `kl_weight` is the weight of the divergence (summed over z) averaged
over tasks, relative to the critics' errors averaged over tasks, independent of the number of tasks in a batch. The
published code sums over tasks: its 0.1 with 16 tasks is 1.6 here. 3. the next observation may be part of the context
for any family. 4. weights are initialised orthogonally, the policy's last layer times `actor_gain`; in the published
code they are uniform. 5. with `normalise_obs`, nets read observations standardised by the moments of what replay held
when the update began.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from agents.discrete_soft_actor_critic import DiscreteSoftActorCritic
from agents.soft_actor_critic import SoftActorCritic
from metarl.adaptation.context import Aggregation, Belief, ContextBelief, factor_size
from metarl.checks import at_least, in_range, literals, not_negative, positive, rounds, widths
from metarl.deployment import DeployedAgent, DeployedPart
from metarl.nets.mlp import Activation, mlp
from metarl.nets.moments import Moments
from metarl.optim import flat_gradient, gradient_step, load_adam
from metarl.parallel import share_of_mean, shared_noise, sharing, total
from metarl.protocols import TaskFamily
from metarl.records import Decision, Step, Trajectory, by_task, cat
from metarl.rl.replay import Replay, Transition
from metarl.rl.replay_source import ReplaySource
from metarl.source import TrainConfig
from metarl.torch_settings import fast_matmul

Experience = Trajectory[Decision]

_COUNTS = ("num_train_tasks", "initial_episodes", "prior_episodes")
_SIZES = ("meta_batch", "batch", "context", "capacity")
_AMOUNTS = ("posterior_episodes", "extra_episodes", "num_exploration_episodes")


@dataclass(frozen=True)
class PEARLConfig:
    """PEARL: soft actor-critic on a belief about the task, inferred from context.

    The defaults are the published settings for the half cheetah's velocities.
    """

    latent_size: int = 5  # size of z, the latent task variable
    aggregation: Aggregation = "product"  # way of combining the context's transitions into a belief
    hidden_sizes: tuple[int, ...] = (300, 300, 300)  # hidden layers of the policy and the critics
    encoder_sizes: tuple[int, ...] = (200, 200, 200)  # hidden layers of the context encoder
    activation: Activation = "relu"  # nonlinearity of the hidden layers
    next_obs_in_context: bool = False  # whether the encoder reads next observations, for tasks that differ in physics
    num_train_tasks: int = 100  # number of fixed training tasks
    initial_episodes: int = 10  # episodes from the prior in each training task before the first iteration
    prior_episodes: int = 2  # episodes from the prior in each task of an iteration
    posterior_episodes: int = 0  # episodes from the posterior in each task of an iteration
    extra_episodes: int = 3  # episodes from the posterior per task of an iteration, not used as context
    num_exploration_episodes: int = 2  # number of first episodes at meta-test with z from the prior
    capacity: int = 50_000  # transitions per task in the replay (published: a million, never filled)
    max_gigabytes: float = 8.0  # memory limit of the replay, in GB
    num_gradient_steps: int = 2000  # gradient steps per iteration
    meta_batch: int = 16  # tasks per gradient step
    batch: int = 256  # transitions per task and gradient step
    context: int = 100  # transitions per task from which the belief is inferred
    normalise_obs: bool = False  # whether observations are standardised by their moments so far in the training
    gamma: float = 0.99  # discount factor
    tau: float = 0.005  # Polyak step of the target critics towards the critics, per gradient step
    learning_rate: float = 3e-4  # step size of every Adam optimiser
    reward_scale: float = 5.0  # factor on the critics' rewards
    shaped_reward: str | None = None  # name of a metric of the family used as the critics' reward; None: the reward
    temperature: float | None = 1.0  # weight of the entropy (SAC); None: learned
    kl_weight: float = 1.6  # weight of the KL divergence of the belief from the prior
    regularisation: float = 1e-3  # L2 penalty on the policy's outputs
    actor_gain: float = 0.01  # initial gain of the policy's last layer; if large, z affects actions from the start

    def __post_init__(self) -> None:
        literals(self)
        widths(self, "latent_size", "hidden_sizes", "encoder_sizes")
        rounds(self, "num_gradient_steps")
        at_least(self, 1, *_COUNTS, *_SIZES)
        at_least(self, 0, *_AMOUNTS)
        positive(self, "max_gigabytes", "learning_rate", "reward_scale", "temperature", "actor_gain")
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
            ValueError: when actions have no bounds.
        """
        return PEARL(self, observation_space, action_space, generator=generator)


PEARL_TWO_CORES = PEARLConfig(  # settings of the robot recipes, for two cores
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
    """The belief about N tasks, and the latents on which their rows act."""

    belief: Belief  # [N, ...], from all absorbed episodes
    source: Belief  # [N, ...], distribution from which z is sampled: the prior, while exploring
    latent: Tensor  # [B, Z], latents of the current episode
    num_absorbed: int = 0  # number of absorbed episodes
    stochastic: bool = False  # whether actions are sampled, as in collection, or the policy's mode


class PEARL:
    """The agent; its source collects experience and owns the replay given to `update`."""

    block: int | None = 1
    training_blocks: int | None = None

    def __init__(
        self,
        config: PEARLConfig,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        *,
        generator: torch.Generator,
    ) -> None:
        self.config = config
        is_discrete = isinstance(action_space, spaces.Discrete)
        num_actions = int(action_space.n) if is_discrete else action_space.shape[0]
        obs_size, device = observation_space.shape[0], generator.device
        self.item_size = obs_size + num_actions + 1 + (obs_size if config.next_obs_in_context else 0)  # of `items`
        sizes = (self.item_size, *config.encoder_sizes, factor_size(config.latent_size, config.aggregation))
        self.encoder = mlp(sizes, activation=config.activation, output_gain=1.0, generator=generator)
        self.sac = (DiscreteSoftActorCritic if is_discrete else SoftActorCritic)(
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
        self.obs_moments = Moments.empty(obs_size, device=device)
        self.num_updates = 0  # gradient steps

    # --- acting -----------------------------------------------------------------------------------------------

    def prior(self, num_tasks: int, copies: int = 1) -> PEARLState:
        """The prior belief; z is the prior's mean until `resample_latent` samples one."""
        belief = self.belief.prior(num_tasks)
        return PEARLState(belief, belief, self.belief.latent(belief).repeat_interleave(copies, 0))

    def resample_latent(
        self, state: PEARLState, episode_start: Tensor, generator: torch.Generator | None
    ) -> PEARLState:
        """A fresh z for each row that starts an episode; generator: None for the belief's mean."""
        copies = len(episode_start) // len(state.source)
        drawn = self.belief.latent(state.source.repeat_interleave(copies), generator)
        return replace(state, latent=torch.where(episode_start[:, None], drawn, state.latent))

    def observe(self, state: PEARLState, action: Tensor | None, step: Step) -> PEARLState:
        """The unchanged state: no adaptation within an episode."""
        return state

    def act(self, state: PEARLState, obs: Tensor, generator: torch.Generator | None) -> Decision:
        distribution = self.sac.actor(torch.cat([self.normalised(obs), state.latent], -1))
        stochastic = state.stochastic and generator is not None
        return Decision(self.sac.actor.to_env(distribution.sample(generator) if stochastic else distribution.mode))

    @torch.no_grad()
    def adapt(self, state: PEARLState, trajectory: Experience) -> PEARLState:
        """The belief after a block of episodes; z is sampled from it once exploration is over."""
        num_tasks = len(state.belief)
        items = self.items(Transition.of(trajectory, trajectory.reward, num_tasks))
        belief = self.belief.adapt(state.belief, items, by_task(trajectory.valid, num_tasks))
        num_absorbed = state.num_absorbed + 1
        source = state.source if num_absorbed < self.config.num_exploration_episodes else belief
        return replace(state, belief=belief, source=source, num_absorbed=num_absorbed)

    def state_vectors(self, state: PEARLState) -> Tensor:
        """The belief's mean and log variance [N, 2 Z]; its point estimate [N, Z] where it is not a distribution."""
        if not self.belief.is_random:
            return self.belief.latent(state.belief)
        posterior = self.belief.posterior(state.belief)
        return torch.cat([posterior.mean, 2 * posterior.log_std], -1)

    def states_of(self, state: PEARLState, tasks: Tensor) -> PEARLState:
        latent = state.latent.unflatten(0, (len(state.belief), -1))[tasks].flatten(0, 1)
        return replace(state, belief=state.belief[tasks], source=state.source[tasks], latent=latent)

    # --- deployed (agents/pearl_deployment.py) --------------------------------------------------------------------

    def deployed(self, num_steps: int) -> DeployedAgent:
        from agents.pearl_deployment import deployed  # here, as training does without

        return deployed(self)

    def deployed_parts(self) -> tuple[DeployedPart, ...]:
        """The encoder, from a transition to the sums of the belief, and the policy, from the sums to an action."""
        from agents.pearl_deployment import deployed_parts

        return deployed_parts(self)

    # --- collecting (metarl/rl/replay_source.py) -----------------------------------------------------------------

    @torch.no_grad()
    def collecting(self, num_tasks: int, copies: int, context: Transition | None) -> PEARLState:
        """The state for collection: z from the prior, or from the posterior given a context [N, K, ...]."""
        state = replace(self.prior(num_tasks, copies), stochastic=True)
        if context is None:
            return state
        belief = self._infer(context)
        return replace(state, belief=belief, source=belief)

    def items(self, data: Transition) -> Tensor:
        """The encoder's inputs for transitions: [..., item]."""
        next_obs = [self.normalised(data.next_obs)] if self.config.next_obs_in_context else []
        return torch.cat(
            [self.normalised(data.obs), self.sac.actor.from_env(data.action), data.reward.unsqueeze(-1), *next_obs], -1
        )

    def normalised(self, obs: Tensor) -> Tensor:
        return self.obs_moments.standardise(obs) if self.config.normalise_obs else obs

    def _infer(self, context: Transition) -> Belief:
        """The belief about tasks given transitions [N, K, ...]."""
        return self.belief.adapt(self.belief.prior(len(context)), self.items(context))

    # --- learning ---------------------------------------------------------------------------------------------

    def update(self, replay: Replay, generator: torch.Generator) -> dict[str, float]:
        """Gradient steps on samples from the replay, whose tasks are shared by the processes that there are.

        Raises:
            FloatingPointError: when a loss is not finite.
        """
        config, device = self.config, replay.device
        if self.config.normalise_obs:  # kept until the next update
            self.obs_moments = replay.obs_moments()
        steps: list[dict[str, Tensor]] = []
        with sharing(config.meta_batch) as share:
            for _ in range(config.num_gradient_steps):
                tasks = torch.randint(config.num_train_tasks, (config.meta_batch,), generator=generator, device=device)
                steps.append(self.gradient_step(replay, share.own(tasks), generator))
            measured = {name: total(share_of_mean(torch.stack([step[name] for step in steps]))) for name in steps[0]}
        measured["latent_size"] = measured.pop("latent_square").sqrt()
        metrics = {f"train/{name}": float(sum(each)) / config.num_gradient_steps for name, each in measured.items()}
        for name in ("train/critic_loss", "train/actor_loss"):
            if not math.isfinite(metrics[name]):
                raise FloatingPointError(f"{name} is {metrics[name]} after {self.num_updates} gradient steps")
        return metrics | {"train/num_gradient_steps": float(self.num_updates)}

    @fast_matmul()
    def gradient_step(self, replay: Replay, tasks: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """One step of critics and encoder, of the policy and of the temperature, on training tasks [M].

        Returns metrics, means over these tasks.
        """
        with shared_noise():
            data = replay.sample(tasks, self.config.batch, generator)  # [M, K, ...]
            belief = self._infer(replay.sample(tasks, self.config.context, generator, recent=True))
            losses = self.critic_losses(data, belief, generator)
        self._step("critic", losses.loss)
        with shared_noise():
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
            "latent_square": self.belief.latent(belief).detach().square().mean(),
        }

    def critic_losses(self, data: Transition, belief: Belief, generator: torch.Generator) -> CriticLosses:
        """The losses of critics and encoder on transitions [M, K, ...] of tasks with these beliefs."""
        config, rows = self.config, data.map(lambda value: value.flatten(0, 1))
        latent = self.belief.latent(belief, generator).repeat_interleave(data.reward.shape[1], 0)  # [M K, Z]
        features = torch.cat([self.normalised(rows.obs), latent], -1)
        next_features = torch.cat([self.normalised(rows.next_obs), latent.detach()], -1)
        reward = config.reward_scale * rows.shaped_reward
        target = self.sac.targets(reward, rows.terminated, next_features, generator)
        critic = self.sac.critic_loss(features, self.sac.actor.from_env(rows.action), target)
        divergence = self.belief.divergence(belief).mean() if self.belief.is_random else critic.new_zeros(())
        return CriticLosses(critic + config.kl_weight * divergence, critic, divergence, features.detach())

    def task_gradients(self, trial: Sequence[Experience], num_tasks: int, generator: torch.Generator) -> Tensor:
        """The gradients of the loss of critics and encoder on each task's own trial, with equal noise: [num_tasks, P].

        The trial is both context and data, and rewards are the task's own, also where training has shaped ones.
        """
        parts = [Transition.of(trajectory, trajectory.reward, num_tasks) for trajectory in trial]
        valid = torch.cat([by_task(trajectory.valid, num_tasks) for trajectory in trial], 1)  # [N, K]
        data, noise, gradients = cat(parts, dim=1), generator.get_state(), []
        for task in range(num_tasks):
            own = data[task].map(lambda values, keep=valid[task]: values[keep].unsqueeze(0))
            generator.set_state(noise)
            loss = self.critic_losses(own, self._infer(own), generator).loss
            gradients.append(flat_gradient(loss, self._critic_params))
        return torch.stack(gradients)

    def _step(self, name: str, loss: Tensor) -> None:
        gradient_step(self.optimizers[name], share_of_mean(loss))

    # --- saving -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        moments = {"obs_moments": dict(vars(self.obs_moments))} if self.config.normalise_obs else {}
        return {
            "encoder": self.encoder.state_dict(),
            "sac": self.sac.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "num_updates": self.num_updates,
            **moments,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.encoder.load_state_dict(state["encoder"])
        self.sac.load_state_dict(state["sac"])
        for name, optimizer in self.optimizers.items():
            load_adam(optimizer, state["optimizers"][name])
        self.num_updates = state["num_updates"]
        if self.config.normalise_obs:
            self.obs_moments = Moments(**state["obs_moments"]).to(self.obs_moments.mean.device)


@dataclass(frozen=True)
class CriticLosses:
    """The losses of the critics and encoder in one gradient step."""

    loss: Tensor  # [], total loss of critics and encoder
    critic: Tensor  # [], the part without the bottleneck
    divergence: Tensor  # [], mean over tasks, in nats
    features: Tensor  # [M K, F], inputs of the policy, with z detached
