"""Off-policy RL2: soft actor-critic whose policy and critics have memories, trained on whole trials from a buffer.

Duan et al. RL2: fast reinforcement learning via slow reinforcement learning (2016), for the problem.
Ni, Eysenbach, Salakhutdinov. Recurrent model-free RL can be a strong baseline for many POMDPs (2022).
Grigsby, Fan, Zhu. AMAGO: scalable in-context reinforcement learning for adaptive agents (2024).
Naik et al. Reward centering (2024), an option.

The memories read the observation, the previous action, the previous reward and whether the previous step ended an
episode, as in agents/rl2.py. A new task clears them, a new episode does not. An episode's end ends no value: the next
episode of the trial follows. After the trial's last step the value is that of the state reached if the time limit ended
it, and zero if the task did.

The policy has one memory, the two critics another. With one memory for all, Ni et al. found the critics' gradient to be
much the larger one, and the policy worse; AMAGO does share one transformer, at the price of normalised returns and of a
weighting of the two losses. With two memories nothing has to be balanced.

Values begin near zero and end near the mean reward over 1 - gamma, on a way of 1 / (tau (1 - gamma)) gradient steps on
which little else is learned. With `center_reward` there is no such way; a larger `tau` shortens it.

Meta-test: the policy acts by its mode. Discrete actions use the losses of agents/discrete_soft_actor_critic.py.

Deviations from Ni et al.: 1. the losses are computed at some steps of each trial, drawn anew for each gradient step;
the memories read all of them. 2. the policy's loss reads the critics' memory as it was before the critics' step. 3. one
encoder for all inputs of a memory, and the observation as it is for the heads. 4. the end of an episode is an input. 5.
the learned temperature starts low, at `initial_temperature`. 6. the initial memory is learned. 7. each iteration has
fresh tasks, not some of a fixed set. 8. observations, and the memories' rewards, are scaled by running moments. 9. with
`segment`, a gradient step reads parts of trials as if each began there: enough where a task shows in a few steps. At
the first of these steps nothing is known yet, and the errors there drown all others; so `burn_in`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from agents.discrete_soft_actor_critic import DiscreteSoftActorCritic
from agents.memories import WithMemory
from agents.soft_actor_critic import SoftActorCritic, polyak_update
from agents.trial_agent import InputMoments, memory_item
from metarl.adaptation.sequence import SequenceBelief, SequenceState
from metarl.checks import at_least, in_range, literals, positive, rounds, widths
from metarl.deployment import DeployedAgent, StepInputs, where
from metarl.nets.mlp import Activation, mlp
from metarl.nets.moments import Moments
from metarl.optim import gradient_step, load_adam
from metarl.parallel import share_of_mean, shared_noise, sharing, total
from metarl.protocols import TaskFamily
from metarl.records import Decision, Record, Step, Trajectory
from metarl.rl.trial_buffer import BufferedTrials, EndedTrialSteps, OffPolicyTrialSource, TrialBuffer
from metarl.source import TrainConfig


@dataclass(frozen=True)
class RL2SACConfig(WithMemory):
    """Off-policy RL²: soft actor-critic with a memory, trained on whole trials from a buffer."""

    head_sizes: tuple[int, ...] = (128, 128)  # hidden layers of the policy's and of each critic's head
    activation: Activation = "relu"  # nonlinearity of the hidden layers
    normalise_obs: bool = True  # whether observations are normalised by running moments
    normalise_reward: bool = True  # whether the memories read rewards divided by their running standard deviation
    reward_input: bool = True  # whether the memories read the rewards; if not, adaptation needs no reward
    buffer_trials: int = 2500  # number of recent trials from which the agent learns
    max_gigabytes: float = 8.0  # memory limit of the recent trials, in GB
    num_gradient_steps: int = 200  # gradient steps per iteration
    meta_batch: int = 16  # trials per gradient step
    # number of consecutive steps of each trial that a gradient step reads, from the empty memory on; None: whole trials
    segment: int | None = None
    burn_in: int = 0  # number of first steps without a loss, of parts that are not their trial's beginning
    batch: int = 64  # steps drawn per trial and gradient step, at which the losses are computed
    gamma: float = 0.99  # discount factor
    tau: float = 0.005  # Polyak step of the target critics and their memory, per gradient step
    learning_rate: float = 3e-4  # step size of every Adam optimiser
    max_grad_norm: float | None = None  # largest norm of the policy's and of the critics' gradient; None: no limit
    reward_scale: float = 1.0  # factor on the critics' rewards
    center_reward: bool = False  # whether the critics' rewards lack their running mean, for tasks that never end early
    temperature: float | None = None  # weight of the entropy (SAC); None: learned
    initial_temperature: float = 0.1  # weight of the entropy at the start, where it is learned
    actor_gain: float = 0.01  # initial gain of the policy's last layer

    def __post_init__(self) -> None:
        literals(self)
        self.check_memory()
        widths(self, "head_sizes")
        rounds(self, "num_gradient_steps")
        at_least(self, 1, "buffer_trials", "meta_batch", "segment", "batch")
        if not 0 <= self.burn_in < (self.segment or 1):
            raise ValueError(f"burn_in is {self.burn_in}; must be at least 0 and below segment, {self.segment}")
        positive(self, "max_gigabytes", "learning_rate", "max_grad_norm", "reward_scale", "temperature")
        positive(self, "initial_temperature", "actor_gain")
        in_range(self, 0, 1, "gamma")
        if not 0 < self.tau <= 1:
            raise ValueError(f"tau is {self.tau}; must be in (0, 1]")

    def make_source(
        self, family: TaskFamily, train: TrainConfig, generators: Mapping[str, torch.Generator]
    ) -> OffPolicyTrialSource:
        """Trials in fresh tasks, and a buffer of recent ones."""
        return OffPolicyTrialSource(self, family, train, generators)

    def make(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        *,
        num_iterations: int,
        generator: torch.Generator,
    ) -> RL2SAC:
        """A fresh agent.

        Raises:
            ValueError: when actions have no bounds.
        """
        return RL2SAC(self, observation_space, action_space, generator=generator)


@dataclass(frozen=True)
class RL2SACState(Record):
    """The agent's state within a trial."""

    memory: SequenceState  # of the policy
    stochastic: Tensor  # [B] bool, whether actions are sampled, as in collection, or the policy's mode


@dataclass(frozen=True)
class Sequences(Record):
    """Whole trials as the networks read them, with one observation more than there are steps."""

    items: Tensor  # [T + 1, M, item], inputs of the memories
    obs: Tensor  # [T + 1, M, O], normalised


class RL2SAC:
    """The agent: `act` reads the policy's memory, `observe` writes to it, `update` learns from the buffer."""

    block: int | None = None  # the state adapts at every step
    training_blocks: int | None = None

    def __init__(
        self,
        config: RL2SACConfig,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        *,
        generator: torch.Generator,
    ) -> None:
        self.config = config
        obs_size, device = observation_space.shape[0], generator.device
        kind = DiscreteSoftActorCritic if isinstance(action_space, spaces.Discrete) else SoftActorCritic
        self.sac = kind(
            config.memory_size + obs_size,
            config.head_sizes,
            action_space,
            activation=config.activation,
            gamma=config.gamma,
            temperature=config.temperature,
            initial_temperature=config.initial_temperature,
            regularisation=0.0,
            actor_gain=config.actor_gain,
            generator=generator,
        )
        item_size = obs_size + self.sac.actor.num_actions + config.reward_input + 1
        self.actor_memory = _memory(config, item_size, generator)
        self.critic_memory = _memory(config, item_size, generator)
        self.target_memory = copy.deepcopy(self.critic_memory).requires_grad_(False)
        groups = {
            "critic": [*self.critic_memory.parameters(), *self.sac.critics.parameters()],
            "actor": [*self.actor_memory.parameters(), *self.sac.actor.parameters()],
        }
        if self.sac.learns_temperature:
            groups["temperature"] = [self.sac.log_temperature]
        self.optimizers = {
            name: torch.optim.Adam(params, lr=config.learning_rate, fused=True) for name, params in groups.items()
        }
        self.moments = InputMoments.empty(device=device, obs=obs_size)
        self.num_updates = 0  # gradient steps

    # --- acting: prior, observe and act, one step at a time ----------------------------------------------------

    def prior(self, num_tasks: int, copies: int = 1) -> RL2SACState:
        memory = self.actor_memory.prior(num_tasks * copies)
        return RL2SACState(memory, torch.zeros(num_tasks * copies, dtype=torch.bool, device=memory.hidden.device))

    def collecting(self, num_tasks: int, copies: int = 1) -> RL2SACState:
        """The prior, for collection: actions are sampled."""
        state = self.prior(num_tasks, copies)
        return RL2SACState(state.memory, ~state.stochastic)

    def observe(self, state: RL2SACState, action: Tensor | None, step: Step) -> RL2SACState:
        encoded = None if action is None else self.sac.actor.from_env(action)
        return RL2SACState(self._read(state.memory, encoded, step), state.stochastic)

    def act(self, state: RL2SACState, obs: Tensor, generator: torch.Generator | None) -> Decision:
        """A decision for obs [B, O], the last observation read by the memory."""
        distribution = self.sac.actor(self._features(state.memory.hidden, self._normalised(obs)))
        action = distribution.mode
        if generator is not None:
            action = where(state.stochastic, distribution.sample(generator), action)
        return Decision(self.sac.actor.to_env(action))

    def adapt(self, state: RL2SACState, trajectory: Trajectory[Decision]) -> RL2SACState:
        """The unchanged state: it has already absorbed every step."""
        return state

    def state_vectors(self, state: RL2SACState) -> Tensor:
        """The output of the policy's memory [B, H]."""
        return state.memory.hidden

    def states_of(self, state: RL2SACState, tasks: Tensor) -> RL2SACState:
        return state[tasks]

    def deployed(self, num_steps: int) -> DeployedAgent:
        def step(memory: SequenceState, inputs: StepInputs) -> tuple[Tensor, SequenceState]:
            encoded = torch.where(inputs.new_task[:, None], 0.0, self.sac.actor.from_env(inputs.action))
            memory = self._read(memory, encoded, inputs.step)
            distribution = self.sac.actor(self._features(memory.hidden, self._normalised(inputs.obs)))
            return self.sac.actor.to_env(distribution.mode), memory

        initial = self.actor_memory.fixed_prior(1, num_steps)
        reads = ("action", *(("reward",) if self.config.reward_input else ()), "episode_end")
        return DeployedAgent(step, initial, reads, max_items=initial.max_items)

    def _read(self, memory: SequenceState, encoded: Tensor | None, step: Step) -> SequenceState:
        """The memory after a step and the encoded action [B, A] that led to it; None at a trial's start."""
        obs = self._normalised(step.obs)
        if encoded is None:
            encoded = obs.new_zeros(len(obs), self.sac.actor.num_actions)
        return self.actor_memory.absorb(memory, self._item(obs, encoded, step.reward, step.episode_end))

    # --- learning ---------------------------------------------------------------------------------------------

    def update(self, experience: BufferedTrials, generator: torch.Generator) -> dict[str, float]:
        """Gradient steps on trials from the buffer, which are shared by the processes that there are.

        Raises:
            FloatingPointError: when a loss or a parameter is not finite; the agent is unusable then.
        """
        (trajectory,), buffer = experience
        config, steps = self.config, []
        self.moments = self.moments.with_steps(trajectory)  # kept until the next update
        with sharing(config.meta_batch) as share:
            for _ in range(config.num_gradient_steps):
                trials, skipped = self._sample(buffer, generator)
                steps.append(self.gradient_step(share.own(trials, dim=1), share.own(skipped), generator))
            measured = {name: total(share_of_mean(torch.stack([step[name] for step in steps]))) for name in steps[0]}
        metrics = {f"train/{name}": float(each.mean()) for name, each in measured.items()}
        for name in ("train/critic_loss", "train/actor_loss"):
            if not math.isfinite(metrics[name]):
                raise FloatingPointError(f"{name} is {metrics[name]} after {self.num_updates} gradient steps")
        return metrics | {"train/num_gradient_steps": float(self.num_updates)}

    def _sample(self, buffer: TrialBuffer, generator: torch.Generator) -> tuple[EndedTrialSteps, Tensor]:
        """Whole trials, or parts with the step after them, [T, M]; and how many first steps have no loss, [M]."""
        config = self.config
        if config.segment is None:
            trials = buffer.sample(config.meta_batch, generator)
            skipped = torch.zeros(config.meta_batch, dtype=torch.int64, device=buffer.device)
        else:
            trials, first = buffer.sample_parts(config.meta_batch, config.segment, generator)
            skipped = torch.where(first > 0, config.burn_in, 0)
        assert isinstance(trials, EndedTrialSteps)
        return trials, skipped

    def gradient_step(self, trials: EndedTrialSteps, skipped: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """One step of the critics, of the policy and of the temperature, on what `_sample` returns.

        Returns metrics, means over these trials.
        """
        length = trials.valid.sum(0)  # [M], one or more each
        if self.config.segment is not None:
            length = length.clamp(max=self.config.segment)  # the step after a part is there to be looked at
        skipped = torch.minimum(skipped, length - 1)
        sequences = self._sequences(trials)
        with shared_noise():
            uniform = torch.rand((len(length), self.config.batch), generator=generator, device=generator.device)
            count = (length - skipped)[:, None]
            drawn = skipped[:, None] + torch.minimum((uniform * count).long(), count - 1)  # [M, K], steps of trials
            actor_hidden, critic_hidden = (
                memory.unroll(memory.prior(len(length)), sequences.items)
                for memory in (self.actor_memory, self.critic_memory)
            )
            features = self._at(drawn, actor_hidden, sequences.obs)
            critic_features = self._at(drawn, critic_hidden, sequences.obs)
            critic = self._critic_loss(trials, sequences, drawn, actor_hidden.detach(), critic_features, generator)
        self._step("critic", critic)
        with shared_noise():
            actor, log_prob = self.sac.actor_loss(features, generator, critic_features=critic_features.detach())
        self._step("actor", actor)
        if self.sac.learns_temperature:
            self._step("temperature", self.sac.temperature_loss(log_prob))
        self.sac.polyak_update(self.config.tau)
        polyak_update(self.target_memory, self.critic_memory, self.config.tau)
        self.num_updates += 1
        return {
            "critic_loss": critic.detach(),
            "actor_loss": actor.detach(),
            "entropy": -log_prob,
            "temperature": self.sac.log_temperature.detach().exp(),
        }

    def _critic_loss(
        self,
        trials: EndedTrialSteps,
        sequences: Sequences,
        drawn: Tensor,
        actor_hidden: Tensor,
        critic_features: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """The critics' loss at steps [M, K], from their features there and the hidden states of the policy's memory."""
        with torch.no_grad():
            target_hidden = self.target_memory.unroll(self.target_memory.prior(len(drawn)), sequences.items)
            reward = taken(trials.reward, drawn)
            if self.config.center_reward:
                reward = reward - self.moments.reward.mean.float()
            target = self.sac.targets(
                self.config.reward_scale * reward,
                taken(trials.terminated & ~_goes_on(trials.valid), drawn),
                self._at(drawn + 1, actor_hidden, sequences.obs),
                generator,
                next_critic_features=self._at(drawn + 1, target_hidden, sequences.obs),
            )
        return self.sac.critic_loss(critic_features, self.sac.actor.from_env(taken(trials.action, drawn)), target)

    def _step(self, name: str, loss: Tensor) -> None:
        max_norm = None if name == "temperature" else self.config.max_grad_norm
        gradient_step(self.optimizers[name], share_of_mean(loss), max_norm=max_norm)

    # --- inputs -----------------------------------------------------------------------------------------------

    def _sequences(self, trials: EndedTrialSteps) -> Sequences:
        """What is read in whole trials: after each step what is acted on next; after the last, what it led to."""
        goes_on = _goes_on(trials.valid)
        later = torch.where(goes_on[..., None], torch.cat([trials.obs[1:], trials.obs[-1:]]), trials.next_obs)
        obs = self._normalised(torch.cat([trials.obs[:1], later]))
        results = (self.sac.actor.from_env(trials.action), trials.reward, trials.episode_end & goes_on)
        before = (torch.cat([torch.zeros_like(value[:1]), value]) for value in results)
        return Sequences(self._item(obs, *before), obs)

    def _item(self, obs: Tensor, action: Tensor, reward: Tensor, episode_end: Tensor) -> Tensor:
        """One item of a memory's input [..., item] from normalised obs, encoded action, raw reward, end flag."""
        scaled = reward / self.moments.reward.std.float() if self.config.normalise_reward else reward
        return memory_item(obs, action, scaled if self.config.reward_input else None, episode_end)

    def _at(self, steps: Tensor, hidden: Tensor, obs: Tensor) -> Tensor:
        """The heads' inputs at steps [M, K]: [M K, F]."""
        return self._features(taken(hidden, steps), taken(obs, steps))

    def _features(self, hidden: Tensor, obs: Tensor) -> Tensor:
        return torch.cat([hidden, obs], -1)

    def _normalised(self, obs: Tensor) -> Tensor:
        return self.moments.obs.standardise(obs) if self.config.normalise_obs else obs

    # --- saving -----------------------------------------------------------------------------------------------

    def _parts(self) -> dict[str, nn.Module]:
        memories = {name: getattr(self, name) for name in ("actor_memory", "critic_memory", "target_memory")}
        return {"sac": self.sac, **memories}

    def state_dict(self) -> dict[str, Any]:
        return {
            **{name: part.state_dict() for name, part in self._parts().items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "moments": {name: vars(moments) for name, moments in vars(self.moments).items()},
            "num_updates": self.num_updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        for name, optimizer in self.optimizers.items():
            load_adam(optimizer, state["optimizers"][name])
        device = self.moments.obs.mean.device
        self.moments = InputMoments(**{name: Moments(**value) for name, value in state["moments"].items()}).to(device)
        self.num_updates = state["num_updates"]


def _memory(config: RL2SACConfig, item_size: int, generator: torch.Generator) -> SequenceBelief[Any]:
    sizes = (item_size, *config.encoder_sizes)
    encoder = mlp(sizes, activation=config.activation, generator=generator)
    return SequenceBelief(encoder, config.memory.make(sizes[-1], config.hidden_size, generator=generator))


def _goes_on(valid: Tensor) -> Tensor:
    """Whether each step [T, M] is followed by another one of its trial."""
    return torch.cat([valid[1:], torch.zeros_like(valid[:1])])


def taken(values: Tensor, steps: Tensor) -> Tensor:
    """The entries of values [T, M, ...] at steps [M, K] of each trial, trial after trial: [M K, ...]."""
    trials = torch.arange(len(steps), device=steps.device)[:, None]
    return values.flatten(0, 1).index_select(0, (steps * len(steps) + trials).flatten())
