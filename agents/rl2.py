"""RL2: a policy whose memory learns to learn, trained by PPO over whole trials.

Duan et al. RL2: fast reinforcement learning via slow reinforcement learning (2016).
Wang et al. Learning to reinforcement learn (2016).
Mishra et al. A simple neural attentive meta-learner (2018), for the SNAIL as its memory.

The memory reads the observation, the previous action, the previous reward and whether the previous step ended an
episode; none of them is zeroed when an episode starts, and the memory is reset between trials only. Advantages are
estimated over the whole trial, so that exploring in the first episode is credited with what later ones gain from it.

Deviations from Duan et al.: 1. PPO (Schulman et al. 2017) in place of TRPO. 2. a critic that shares the memory in
place of a separate one. 3. the policy and value heads see the observation beside the memory. 4. with
`whole_transition`, an item also repeats the previous observation, so that a state, the action in it and what came of
them stand side by side; the memory need not first learn to hold on to the state. 5. without `credit_across_episodes`,
an episode's end is worth nothing more, whether the task or the time limit ended it. 6. observations and rewards are
normalised by running moments of the training's, unless told otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from gymnasium import spaces
from torch import Tensor, nn

from metarl.adaptation.recurrent import RecurrentConfig
from metarl.adaptation.sequence import MemoryConfig, SequenceAdaptation, SequenceState
from metarl.adaptation.snail import SnailConfig
from metarl.adaptation.transformer import TransformerConfig
from metarl.nets.mlp import Activation, PolicyHead, mlp
from metarl.nets.moments import Moments
from metarl.optim import check_finite, gradient_step
from metarl.records import ActorCriticDecision, Record, Step, Trajectory
from metarl.rl.losses import (
    approximate_kl,
    clipped_surrogate,
    clipped_value_loss,
    discounted_sum,
    generalized_advantage,
    mean_where,
    standardise_where,
)

Experience = Trajectory[ActorCriticDecision]
MemoryKind = Literal["gru", "lstm", "snail", "transformer"]


@dataclass(frozen=True)
class RL2Config:
    """Settings of RL2 with PPO."""

    memory: MemoryKind = "gru"
    memory_span: int | None = None  # steps that an untrained "gru" or "lstm" keeps, at most; None: about two
    snail: SnailConfig = field(default_factory=SnailConfig)  # where it is the memory
    transformer: TransformerConfig = field(default_factory=TransformerConfig)  # likewise
    whole_transition: bool = False  # whether each item of the memory's input also holds the previous observation
    hidden_size: int = 128  # of what is read from the memory: units, or a transformer's width
    encoder_sizes: tuple[int, ...] = ()  # hidden layers between the inputs and the memory
    head_sizes: tuple[int, ...] = (64,)  # hidden layers of the policy's and of the critic's head
    activation: Activation = "tanh"
    init_std: float = 1.0  # of continuous actions, where the box is [-1, 1]
    gamma: float = 0.99
    lam: float = 0.95
    credit_across_episodes: bool = True  # whether advantages cross the ends of episodes inside a trial
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-4  # reached linearly at the last iteration; at most `learning_rate`
    num_epochs: int = 5
    num_minibatches: int = 4  # of whole trials, per epoch
    clip: float = 0.2
    value_clip: float | None = None  # in units of normalised return
    value_coefficient: float = 0.5
    entropy_coefficient: float = 0.01
    final_entropy_coefficient: float | None = None  # reached linearly at the last iteration; None: constant
    max_grad_norm: float = 0.5
    target_kl: float | None = 0.03  # an update stops at the first minibatch beyond 1.5 times this
    normalise_obs: bool = True
    normalise_reward: bool = True

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_epochs", "num_minibatches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("encoder_sizes", "head_sizes"):
            if any(size < 1 for size in getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}; each must be at least 1")
        self._check_memory()
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1]")
        for name in ("learning_rate", "clip", "value_clip", "init_std", "max_grad_norm", "target_kl"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive and finite")
        for name in ("final_learning_rate", "value_coefficient", "entropy_coefficient", "final_entropy_coefficient"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be zero or positive, and finite")
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate is {self.final_learning_rate} and learning_rate {self.learning_rate}; "
                "the final one must not be the larger"
            )

    def _check_memory(self) -> None:
        """Refuse settings of a memory that is not the one in use: they would be without effect."""
        if self.memory not in get_args(MemoryKind):
            allowed = ", ".join(repr(kind) for kind in get_args(MemoryKind))
            raise ValueError(f"memory is {self.memory!r}; allowed are {allowed}")
        if self.memory_span is not None and self.memory_span < 2:
            raise ValueError(f"memory_span is {self.memory_span}; it must be at least 2, or None")
        if self.memory_span is not None and self.memory not in ("gru", "lstm"):
            raise ValueError(
                f"memory_span is {self.memory_span} and memory {self.memory!r}; it needs memory 'gru' or 'lstm'"
            )
        for name, plain in (("snail", SnailConfig()), ("transformer", TransformerConfig())):
            if self.memory != name and getattr(self, name) != plain:
                raise ValueError(f"memory is {self.memory!r}; the settings given for {name} need memory {name!r}")
        if self.memory == "transformer":
            self.transformer.check_width(self.hidden_size)

    @property
    def memory_config(self) -> MemoryConfig:
        """The settings of the memory in use."""
        match self.memory:
            case "snail":
                return self.snail
            case "transformer":
                return self.transformer
            case cell:
                return RecurrentConfig(cell, self.memory_span)

    @property
    def max_trial_steps(self) -> int | None:
        """The longest trial that the memory can read, and one more item after it; None: any."""
        limited = self.memory == "transformer" and self.transformer.positions == "learned"
        return self.transformer.max_items - 1 if limited else None

    def make(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        *,
        num_iterations: int,
        generator: torch.Generator,
    ) -> RL2:
        return RL2(self, observation_space, action_space, num_iterations=num_iterations, generator=generator)


@dataclass(frozen=True)
class RL2State(Record):
    """What an agent within a trial carries from step to step."""

    memory: SequenceState
    obs: Tensor  # [B, O], the normalised observation that the memory has read last; zero before the first


@dataclass(frozen=True)
class InputMoments(Record):
    """What the inputs of the networks are normalised by."""

    obs: Moments  # of [O]
    reward: Moments  # of []
    earned: Moments  # of []: the discounted sum of rewards so far, whose spread scales the critic's targets


@dataclass(frozen=True)
class Batch(Record):
    """What one update learns from; every row is a whole trial."""

    items: Tensor  # [T, B, item], what the memory read
    obs: Tensor  # [T, B, O], normalised
    decision: ActorCriticDecision  # [T, B, ...], as it was taken
    advantage: Tensor  # [T, B], standardised
    target: Tensor  # [T, B], of the critic, in units of normalised return
    valid: Tensor  # [T, B] bool

    def rows(self, index: Tensor) -> Batch:
        return self.map(lambda value: value[:, index])


class RL2Network(nn.Module):
    """The memory with its policy and value heads."""

    def __init__(
        self,
        config: RL2Config,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        obs_size = observation_space.shape[0]
        head_sizes = (config.hidden_size + obs_size, *config.head_sizes)
        make = {"activation": config.activation, "generator": generator}
        self.policy = PolicyHead(head_sizes, action_space, init_std=config.init_std, **make)
        self.critic = mlp([*head_sizes, 1], output_gain=1.0, **make)
        item_size = obs_size * (2 if config.whole_transition else 1) + self.policy.num_actions + 2
        sizes = (item_size, *config.encoder_sizes)
        encoder = mlp(sizes, **make)
        self.memory = SequenceAdaptation(
            encoder,
            config.memory_config.make(sizes[-1], config.hidden_size, generator=generator),
            lambda hidden, obs: self.policy.net(torch.cat([hidden, obs], -1)),
        )


class RL2:
    """The agent: act by reading the memory, observe by writing to it, update by PPO on whole trials."""

    block: int | None = None  # the memory adapts at every step
    training_blocks: int | None = None

    def __init__(
        self,
        config: RL2Config,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        *,
        num_iterations: int,
        generator: torch.Generator,
    ) -> None:
        self.config = config
        self.num_iterations = num_iterations
        self.iteration = 0
        self.obs_size = observation_space.shape[0]
        self.net = RL2Network(config, observation_space, action_space, generator)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=config.learning_rate, eps=1e-5)
        device = generator.device
        self.moments = InputMoments(
            obs=Moments.empty(*observation_space.shape, device=device),
            reward=Moments.empty(device=device),
            earned=Moments.empty(device=device),
        )

    # --- acting: the three verbs, one step at a time -----------------------------------------------------------

    def prior(self, num_tasks: int, copies: int = 1) -> RL2State:
        memory = self.net.memory.prior(num_tasks * copies)
        return RL2State(memory, memory.hidden.new_zeros(num_tasks * copies, self.obs_size))

    def observe(self, state: RL2State, action: Tensor | None, step: Step) -> RL2State:
        obs = self._normalised_obs(step.obs)
        if action is None:
            encoded = obs.new_zeros(len(obs), self.net.policy.num_actions)
        else:
            encoded = self.net.policy.encode(action)
        item = self._item(state.obs, obs, encoded, step.reward, step.episode_end)
        return RL2State(self.net.memory.absorb(state.memory, item), obs)

    def act(self, state: RL2State, obs: Tensor, generator: torch.Generator | None) -> ActorCriticDecision:
        """Decide on obs [B, O], the observation that the memory has read last."""
        features = torch.cat([state.memory.hidden, state.obs], -1)
        distribution = self.net.policy(features)
        action = distribution.mode if generator is None else distribution.sample(generator)
        return ActorCriticDecision(
            action=self.net.policy.to_env(action),
            log_prob=distribution.log_prob(action),
            value=self.net.critic(features).squeeze(-1),
        )

    def adapt(self, state: RL2State, trajectory: Experience) -> RL2State:
        """The memory has already absorbed every step."""
        return state

    # --- learning ---------------------------------------------------------------------------------------------

    def update(self, trial: Sequence[Experience], generator: torch.Generator) -> dict[str, float]:
        """PPO on one batch of trials, which have one block; every row of its trajectory is a whole trial.

        Raises:
            FloatingPointError: when a parameter is no longer finite; the agent is of no use then.
        """
        config = self.config
        progress = min(self.iteration / max(self.num_iterations - 1, 1), 1.0)
        learning_rate = _interpolate(config.learning_rate, config.final_learning_rate, progress)
        entropy_coefficient = _interpolate(config.entropy_coefficient, config.final_entropy_coefficient, progress)
        (trajectory,) = trial
        batch = self._batch(trajectory)
        sums = torch.zeros(6, device=batch.obs.device)
        kls: list[Tensor] = []  # of all minibatches, that which stops the update too
        num_minibatches = 0
        for rows in self._minibatches(batch.obs.shape[1], generator):
            losses = self._loss(batch.rows(rows))
            policy_loss, value_loss, entropy, kl, _ = losses
            kls.append(kl)
            if config.target_kl is not None and kl.item() > 1.5 * config.target_kl and num_minibatches > 0:
                break
            loss = policy_loss + config.value_coefficient * value_loss - entropy_coefficient * entropy
            norm = gradient_step(self.optimizer, loss, max_norm=config.max_grad_norm, learning_rate=learning_rate)
            num_minibatches += 1
            sums += torch.stack([*losses, norm]).detach()
        check_finite(self.net, f"update {self.iteration + 1}, at learning_rate {learning_rate}")
        self._learn_moments(trajectory)
        self.iteration += 1
        names = ("policy_gradient_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "grad_norm")
        metrics: dict[str, float] = dict(zip(names, (sums / num_minibatches).tolist(), strict=True))
        metrics["approx_kl"] = float(torch.stack(kls).mean())
        metrics["learning_rate"] = learning_rate
        metrics["num_gradient_steps"] = float(num_minibatches)
        metrics["explained_variance"] = _explained_variance(batch)
        if not self.net.policy.is_discrete:
            metrics["std"] = float(self.net.policy.log_std.detach().exp().mean())
        return {f"train/{name}": value for name, value in metrics.items()}

    def _batch(self, trajectory: Experience) -> Batch:
        obs = self._normalised_obs(trajectory.obs)
        advantage, target = self._advantages(trajectory)
        return Batch(self._items(trajectory, obs), obs, trajectory.decision, advantage, target, trajectory.valid)

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Policy loss, value loss, entropy, approximate KL and the share of clipped ratios, over valid steps."""
        config, old = self.config, batch.decision
        hidden = self.net.memory.unroll(self.net.memory.prior(batch.obs.shape[1]), batch.items)
        features = torch.cat([hidden, batch.obs], -1)
        distribution = self.net.policy(features)
        value = self.net.critic(features).squeeze(-1)
        log_prob = distribution.log_prob(self.net.policy.from_env(old.action))
        policy_loss = clipped_surrogate(log_prob, old.log_prob, batch.advantage, config.clip)
        value_loss = clipped_value_loss(value, old.value, batch.target, config.value_clip)
        with torch.no_grad():
            kl = approximate_kl(log_prob, old.log_prob)
            clipped = ((log_prob - old.log_prob).exp() - 1).abs() > config.clip
        terms = (policy_loss, value_loss, distribution.entropy(), kl, clipped.float())
        policy_loss, value_loss, entropy, kl, clipped = (mean_where(term, batch.valid) for term in terms)
        return policy_loss, value_loss, entropy, kl, clipped

    def _advantages(self, trajectory: Experience) -> tuple[Tensor, Tensor]:
        """Standardised advantages and the critic's targets in units of normalised return, both [T, B]."""
        config, valid, value = self.config, trajectory.valid, trajectory.decision.value
        reward = torch.where(valid, trajectory.reward, 0.0)
        if config.normalise_reward:
            earned = discounted_sum(reward, trajectory.trial_start, config.gamma)
            self.moments = InputMoments(
                self.moments.obs, self.moments.reward, self.moments.earned.merge(Moments.of(earned[valid]))
            )
            reward = reward / self.moments.earned.std.float()
        goes_on = torch.zeros_like(valid)  # [T, B]: whether the next step belongs to the same chain of credit
        goes_on[:-1] = valid[1:]
        if not config.credit_across_episodes:
            goes_on &= ~trajectory.episode_end
        next_value = torch.zeros_like(value)
        next_value[:-1] = value[1:]
        next_value = torch.where(goes_on, next_value, 0.0)
        advantage = generalized_advantage(reward, value, next_value, goes_on, gamma=config.gamma, lam=config.lam)
        return standardise_where(advantage, valid), advantage + value

    def _minibatches(self, num_rows: int, generator: torch.Generator) -> Iterator[Tensor]:
        count = min(self.config.num_minibatches, num_rows)
        for _ in range(self.config.num_epochs):
            order = torch.randperm(num_rows, generator=generator, device=generator.device)
            yield from order.tensor_split(count)

    def _learn_moments(self, trajectory: Experience) -> None:
        """Absorb the batch into the normalisers; after the update, so that acting and learning saw the same inputs."""
        valid = trajectory.valid
        self.moments = InputMoments(
            self.moments.obs.merge(Moments.of(trajectory.obs[valid])),
            self.moments.reward.merge(Moments.of(trajectory.reward[valid])),
            self.moments.earned,
        )

    # --- inputs -----------------------------------------------------------------------------------------------

    def _normalised_obs(self, obs: Tensor) -> Tensor:
        return self.moments.obs.standardise(obs) if self.config.normalise_obs else obs

    def _items(self, trajectory: Experience, obs: Tensor) -> Tensor:
        """What the memory read at each step [T, B, item]: the observation and what the previous step brought."""
        action = self.net.policy.encode(trajectory.decision.action)
        before = (_shifted(value) for value in (obs, action, trajectory.reward, trajectory.episode_end))
        previous_obs, action, reward, episode_end = before
        return self._item(previous_obs, obs, action, reward, episode_end)

    def _item(self, previous_obs: Tensor, obs: Tensor, action: Tensor, reward: Tensor, episode_end: Tensor) -> Tensor:
        """One item of the memory's input [..., item] from normalised obs, encoded action, raw reward, end flag."""
        if self.config.normalise_reward:
            reward = reward / self.moments.reward.std.float()
        parts = [obs, action, reward.unsqueeze(-1), episode_end.unsqueeze(-1).to(obs.dtype)]
        return torch.cat([previous_obs, *parts] if self.config.whole_transition else parts, -1)

    # --- saving -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "iteration": self.iteration,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "moments": {name: vars(moments) for name, moments in vars(self.moments).items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.iteration = state["iteration"]
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        device = self.moments.obs.mean.device
        self.moments = InputMoments(**{name: Moments(**value) for name, value in state["moments"].items()}).to(device)


def _explained_variance(batch: Batch) -> float:
    """The share of the targets' variance that the critic's values, as collected, account for."""
    target = batch.target[batch.valid]
    residual = target - batch.decision.value[batch.valid]
    return float(1 - residual.var() / target.var().clamp(min=1e-12))


def _shifted(values: Tensor) -> Tensor:
    """Each step's value moved to the step after it [T, ...]; zero at the first."""
    return torch.cat([torch.zeros_like(values[:1]), values[:-1]])


def _interpolate(start: float, end: float | None, progress: float) -> float:
    return start if end is None else start + (end - start) * progress
