"""VariBAD: a policy on the observation and on a belief about the task, learned as a variational autoencoder.

Zintgraf et al. VariBAD: a very good method for Bayes-adaptive deep RL via meta-learning (2020).

A GRU reads each (action, reward, next observation) of the trial and gives a Gaussian belief over a latent task variable
(agents/belief_vae.py). It keeps its memory over the episodes of a trial: only a new task resets it. The policy and the
critic read the belief's mean and log variance; their loss does not reach the encoder, which learns to predict the
rewards of whole trials, past and future, and, with `state_decoder_sizes`, the next observations.

`kl_weight` is the weight of the KL divergence, summed over the latent and averaged over prefixes and trials, relative
to errors summed over a trial's transitions and averaged over prefixes and trials. The published code sums divergences
over a batch's trials and errors over the drawn transitions only: its .01 with batches of 25 trials is .25 here
(GridNavi); its .1 with batches of 10 trials and 50 of 400 transitions is 8 here (half cheetah).

Deviations: 1. action, reward and next observation share the encoder's first layer. 2. the encoder's initial memory is
learned. 3. a minibatch of PPO holds whole trials, and many more of them; the VAE takes more steps per iteration for it.
4. there is no collection before the first iteration. 5. the encoder's gradient flows through the whole trial. 6. with
`normalise_obs` and `normalise_reward`, the VAE too reads observations and rewards scaled by running moments. 7. there
is no extra transition when an episode starts; the encoder is not told of the ends of episodes. 8. without
`reward_input`, the encoder does not read the rewards, which its decoder still learns to predict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from agents.belief_vae import BeliefVAE, RewardKind, Transitions
from agents.hyperx import HyperX, HyperXConfig
from agents.ppo import PPO, Evaluated
from agents.trial_agent import FEW_STEPS, InputMoments, LatentAgentConfig, TrialAgent, policy_and_critic
from metarl.adaptation.recurrent import RecurrentConfig
from metarl.adaptation.sequence import SequenceState
from metarl.checks import at_least, not_negative, positive, rounds, widths
from metarl.deployment import DeployedAgent, StepInputs, where
from metarl.errors import UserError
from metarl.nets.distributions import DiagonalGaussian
from metarl.nets.mlp import mlp
from metarl.nets.moments import Moments
from metarl.optim import gradient_step, load_adam
from metarl.parallel import Share, current, shared_noise, sharing, total
from metarl.protocols import TaskFamily
from metarl.records import ActorCriticDecision, Record, Step, Trajectory
from metarl.rl.trial_buffer import BufferedTrials, BufferedTrialSource, TrialSteps
from metarl.source import TrainConfig


@dataclass(frozen=True)
class VariBADConfig(LatentAgentConfig):
    """VariBAD: a policy on a variational belief about the task, trained by PPO."""

    latent_size: int = 5  # size of z, the latent task variable
    memory: RecurrentConfig = field(default_factory=RecurrentConfig)  # recurrent cell of the encoder
    hidden_size: int = 64  # number of units of the encoder's memory
    encoder_sizes: tuple[int, ...] = (32,)  # hidden layers between a transition and the encoder's memory
    reward_decoder: RewardKind = "scalar"  # kind of prediction: of the reward, or of its sign for each one-hot entry
    reward_decoder_sizes: tuple[int, ...] = (64, 32)  # hidden layers of the reward decoder
    state_decoder_sizes: tuple[int, ...] | None = None  # hidden layers of the state decoder; None: no state decoder
    embedding_size: int = 32  # size of the policy's embeddings of the observation and of the belief
    normalise_belief: bool = True  # whether the policy's view of the belief is normalised by running moments
    kl_weight: float = 1.0  # weight of the KL divergence of each belief from the one before it
    vae_learning_rate: float = 1e-3  # initial step size of the VAE's Adam
    final_vae_learning_rate: float | None = None  # step size of the VAE's Adam at the last iteration; None: constant
    vae_max_grad_norm: float | None = None  # largest norm of the VAE's gradient; None: no limit
    num_vae_steps: int = 10  # number of the VAE's gradient steps per iteration
    vae_batch: int = 32  # number of trials per step of the VAE
    num_terms: int | None = None  # number of prefixes drawn per trial, each with a term of the loss; None: all
    num_decoded: int | None = None  # number of transitions drawn per trial to be decoded; None: all
    buffer_trials: int = 1000  # number of recent trials from which the VAE learns
    max_gigabytes: float = 8.0  # memory limit of the recent trials, in GB

    def __post_init__(self) -> None:
        super().__post_init__()
        widths(self, "latent_size", "hidden_size", "encoder_sizes", "reward_decoder_sizes", "state_decoder_sizes")
        widths(self, "embedding_size")
        rounds(self, "num_vae_steps")
        at_least(self, 1, "vae_batch", "num_terms", "num_decoded", "buffer_trials")
        positive(self, "vae_learning_rate", "vae_max_grad_norm", "max_gigabytes")
        not_negative(self, "final_vae_learning_rate")
        not_negative(self, "kl_weight")
        if not isinstance(self.memory, RecurrentConfig):
            raise ValueError(f"memory is {self.memory!r}; must be a RecurrentConfig")

    def make_source(
        self, family: TaskFamily, train: TrainConfig, generators: Mapping[str, torch.Generator]
    ) -> BufferedTrialSource:
        """Trials in fresh tasks, and a buffer of recent ones."""
        return BufferedTrialSource(self, family, train, generators)

    def make(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        *,
        num_iterations: int,
        generator: torch.Generator,
    ) -> VariBAD:
        return VariBAD(self, observation_space, action_space, num_iterations=num_iterations, generator=generator)


VARIBAD_ROBOT = VariBADConfig(  # base settings of the robot recipes
    hidden_size=128,
    encoder_sizes=(64,),
    embedding_size=64,
    head_sizes=(128,),
    gamma=0.97,
    lam=0.9,
    learning_rate=1e-3,
    final_learning_rate=2e-4,
    num_minibatches=8,
    entropy_coefficient=0.0,
    kl_weight=8.0,
    vae_max_grad_norm=1.0,
    num_vae_steps=4,
    vae_batch=10,
    num_terms=50,
    num_decoded=50,
)
VARIBAD_FEW_STEPS = replace(  # the same with larger steps, for a few million steps in all
    VARIBAD_ROBOT,
    **FEW_STEPS,
    num_minibatches=4,
    num_vae_steps=16,
    vae_learning_rate=3e-3,
    final_vae_learning_rate=5e-4,
    vae_batch=16,
)


@dataclass(frozen=True)
class VariBADState(Record):
    """The agent's state within a trial."""

    memory: SequenceState  # of the encoder
    belief: DiagonalGaussian  # [B, Z], after the transitions read so far


@dataclass(frozen=True)
class BeliefDecision(ActorCriticDecision):
    """A sampled action with the belief on which it was taken."""

    belief: DiagonalGaussian  # [B, Z]


Experience = Trajectory[BeliefDecision]


@dataclass(frozen=True)
class BeliefMoments(InputMoments):
    """Running moments that normalise the networks' inputs."""

    belief: Moments  # of beliefs' means and log variances [2 Z]


class BeliefPolicy(nn.Module):
    """The policy and the critic, which share embeddings of the observation and of the belief."""

    def __init__(
        self,
        config: VariBADConfig,
        obs_size: int,
        action_space: spaces.Box | spaces.Discrete,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        make = {"activation": config.activation, "generator": generator}
        self.obs = mlp((obs_size, config.embedding_size), **make)
        belief_size = config.embedding_size if config.writer is None else config.writer.embedding_size
        self.belief = mlp((2 * config.latent_size, belief_size), **make)
        self.head, self.critic = policy_and_critic(
            config,
            action_space,
            obs_size=config.embedding_size,
            latent_size=belief_size,
            latent_first=False,
            generator=generator,
        )

    def features(self, obs: Tensor, belief: Tensor) -> Tensor:
        """The heads' inputs from normalised observations [..., O] and beliefs [..., 2 Z]."""
        return torch.cat([self.obs(obs), self.belief(belief)], -1)


class VariBAD(TrialAgent):
    """The agent: `observe` updates the belief, `act` reads it, `update` runs PPO and then trains the VAE."""

    def __init__(
        self,
        config: VariBADConfig,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        *,
        num_iterations: int,
        generator: torch.Generator,
    ) -> None:
        self.config = config
        obs_size = observation_space.shape[0]
        self.policy = BeliefPolicy(config, obs_size, action_space, generator)
        self.vae = BeliefVAE(
            obs_size=obs_size,
            num_actions=self.policy.head.num_actions,
            latent_size=config.latent_size,
            memory=config.memory,
            hidden_size=config.hidden_size,
            encoder_sizes=config.encoder_sizes,
            reward_input=config.reward_input,
            reward_decoder=config.reward_decoder,
            reward_decoder_sizes=config.reward_decoder_sizes,
            state_decoder_sizes=config.state_decoder_sizes,
            generator=generator,
        )
        self.ppo = PPO(config, self.policy, num_iterations)
        self.vae_optimizer = torch.optim.Adam(self.vae.parameters(), lr=config.vae_learning_rate)
        self.moments = BeliefMoments.empty(device=generator.device, obs=obs_size, belief=2 * config.latent_size)
        if isinstance(config.bonus, HyperXConfig):
            self.hyperx = HyperX(
                config.bonus,
                obs_size=obs_size,
                belief_size=2 * config.latent_size,
                gamma=config.gamma,
                generator=generator,
            )

    # --- acting: prior, observe and act, one step at a time ----------------------------------------------------

    def prior(self, num_tasks: int, copies: int = 1) -> VariBADState:
        memory = self.vae.memory.prior(num_tasks * copies)
        return VariBADState(memory, self.vae.belief(memory))

    def observe(self, state: VariBADState, action: Tensor | None, step: Step) -> VariBADState:
        """The belief after one more transition; the first observation of a trial is none, and changes nothing."""
        if action is None:
            return state
        parts = (self.policy.head.encode(action), self._scaled_reward(step.reward), self._normalised_obs(step.next_obs))
        memory = self.vae.memory.absorb(state.memory, self.vae.items(*parts))
        return VariBADState(memory, self.vae.belief(memory))

    def act(self, state: VariBADState, obs: Tensor, generator: torch.Generator | None) -> BeliefDecision:
        features = self._features(obs, state.belief)
        distribution = self.policy.head(features)
        action = distribution.mode if generator is None else distribution.sample(generator)
        return BeliefDecision(
            action=self.policy.head.to_env(action),
            log_prob=distribution.log_prob(action),
            value=self.policy.critic(features).squeeze(-1),
            belief=state.belief,
        )

    def state_vectors(self, state: VariBADState) -> Tensor:
        """The belief's mean and log variance [B, 2 Z]."""
        return _as_input(state.belief)

    def deployed(self, num_steps: int) -> DeployedAgent:
        def step(state: VariBADState, inputs: StepInputs) -> tuple[Tensor, VariBADState]:
            state = where(inputs.new_task, state, self.observe(state, inputs.action, inputs.step))
            return self.act(state, inputs.obs, None).action, state

        memory = self.vae.memory.fixed_prior(1, num_steps)
        initial = VariBADState(memory, self.vae.belief(memory))
        reads = ("action", *(("reward",) if self.config.reward_input else ()), "next_obs")
        return DeployedAgent(step, initial, reads, max_items=memory.max_items)

    @torch.no_grad()
    def predict_reward(
        self,
        belief: DiagonalGaussian,
        obs: Tensor,
        action: Tensor,
        next_obs: Tensor,
        *,
        num_samples: int,
        generator: torch.Generator,
    ) -> Tensor:
        """What the decoder says of transitions [K, ...] that need not have happened, under beliefs [B, Z].

        Its rewards, or its probabilities of a positive reward, for samples of each belief: [num_samples, B, K].
        """
        latent = belief.map(lambda value: value.expand(num_samples, -1, -1)).sample(generator)  # [S, B, Z]
        action = self.policy.head.encode(action)
        reward, valid = torch.zeros(len(obs), device=obs.device), torch.ones(len(obs), dtype=torch.bool)
        scaled = self._normalised_obs(obs), action, reward, self._normalised_obs(next_obs)
        transitions = Transitions(*scaled, next_obs, valid)
        transitions = transitions.map(lambda value: value[:, None].expand(-1, latent.shape[1], *value.shape[1:]))
        predicted = self.vae.reward_decoder.predict(latent, transitions).transpose(1, 2)  # [S, B, K]
        if self.config.reward_decoder == "scalar" and self.config.normalise_reward:
            return predicted * self.moments.reward.std.float()
        return predicted

    # --- learning ---------------------------------------------------------------------------------------------

    def update(self, experience: BufferedTrials, generator: torch.Generator) -> dict[str, float]:
        """PPO on one batch of whole trials, on the beliefs on which they were acted; then the VAE on recent trials.

        Raises:
            FloatingPointError: when a parameter is no longer finite; the agent is unusable then.
            UserError: when the reward decoder needs one-hot observations, and these are not.
        """
        (trajectory,), buffer = experience
        learning_rate = self.ppo.scheduled(self.config.vae_learning_rate, self.config.final_vae_learning_rate)
        bonus, metrics = self._bonus(trajectory, generator)
        paid = replace(trajectory, reward=trajectory.reward + bonus)
        self._see_returns(paid)
        metrics |= self._update_policy(paid, generator)
        sums: dict[str, Tensor] = {}
        with sharing(self.config.vae_batch):
            for _ in range(self.config.num_vae_steps):
                trials = buffer.sample(self.config.vae_batch, generator)
                for name, value in self._vae_step(trials, learning_rate, generator).items():
                    sums[name] = sums.get(name, 0.0) + value
            sums = {name: total(value) for name, value in sums.items()}
        metrics |= {name: float(value) / self.config.num_vae_steps for name, value in sums.items()}
        # At the end: acting and learning must use the same normalisation.
        self.moments = self.moments.with_steps(trajectory, belief=_as_input(trajectory.decision.belief))
        return {f"train/{name}": value for name, value in metrics.items()}

    def _reached(self, trajectory: Experience, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        transitions = self._transitions(TrialSteps.of(trajectory))
        after = self.vae.beliefs(transitions).map(lambda value: value[1:])  # the beliefs that hold each step
        with shared_noise(dim=1):
            latent = after.sample(generator)
        error = self.vae.error_of_each(transitions, latent)
        return torch.cat([transitions.next_obs, _as_input(after)], -1), error

    def task_gradients(self, trial: Sequence[Experience], num_tasks: int, generator: torch.Generator) -> Tensor:
        """The gradients of PPO's loss for policy and critic, given the beliefs on which they acted: [num_tasks, P].

        The loss of the VAE, on recent trials of all tasks, is left out.
        """
        (trajectory,) = trial
        return self._policy_gradients(
            list(self.policy.parameters()), trajectory, self._evaluation(trajectory), num_tasks
        )

    def _update_policy(self, trajectory: Experience, generator: torch.Generator) -> dict[str, float]:
        return self._update_head(self.policy.head, trajectory, self._evaluation(trajectory), generator)

    def _evaluation(self, trajectory: Experience) -> Callable[[Tensor], Evaluated]:
        """A function that evaluates the policy on some rows, on the beliefs on which they were acted."""
        decision = trajectory.decision

        def evaluate(rows: Tensor) -> Evaluated:
            belief = decision.belief.map(lambda value: value.index_select(1, rows))
            features = self._features(trajectory.obs.index_select(1, rows), belief)
            distribution = self.policy.head(features)
            log_prob = distribution.log_prob(self.policy.head.from_env(decision.action.index_select(1, rows)))
            return Evaluated(log_prob, self.policy.critic(features).squeeze(-1), distribution.entropy())

        return evaluate

    def _vae_step(self, trials: TrialSteps, learning_rate: float, generator: torch.Generator) -> dict[str, Tensor]:
        """One gradient step of the VAE, on this process's share of trials; returns its terms of the loss's parts."""
        config, share = self.config, current() or Share(trials.valid.shape[1])
        own = share.own(trials, dim=1)
        with share.noise(dim=1):
            elbo = self.vae.elbo(self._transitions(own), config.num_terms, config.num_decoded, generator)
        if share.count > 1:  # each part is a mean over the prefixes of this process's trials
            weight = _num_prefixes(own) / _num_prefixes(trials) if config.num_terms is None else share.fraction
            elbo = elbo.map(lambda value: weight * value)
        loss = elbo.reward_error + elbo.state_error + config.kl_weight * elbo.divergence
        gradient_step(self.vae_optimizer, loss, max_norm=config.vae_max_grad_norm, learning_rate=learning_rate)
        parts = {"vae_reward_error": elbo.reward_error, "vae_kl": elbo.divergence}
        if config.state_decoder_sizes is not None:
            parts["vae_state_error"] = elbo.state_error
        return {name: value.detach() for name, value in parts.items()}

    # --- inputs -----------------------------------------------------------------------------------------------

    def _features(self, obs: Tensor, belief: DiagonalGaussian) -> Tensor:
        seen = _as_input(belief)
        if self.config.normalise_belief:
            seen = self.moments.belief.standardise(seen)
        return self.policy.features(self._normalised_obs(obs), seen)

    def _transitions(self, trials: TrialSteps) -> Transitions:
        obs, next_obs = self._normalised_obs(trials.obs), self._normalised_obs(trials.next_obs)
        if self.config.reward_decoder == "one_hot":
            _check_one_hot(trials.next_obs[trials.valid])
        action, reward = self.policy.head.encode(trials.action), self._scaled_reward(trials.reward)
        return Transitions(obs, action, reward, next_obs, trials.next_obs, trials.valid)

    # --- saving -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "policy": self.policy.state_dict(),
            "vae": self.vae.state_dict(),
            "vae_optimizer": self.vae_optimizer.state_dict(),
            **super().state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.vae.load_state_dict(state["vae"])
        load_adam(self.vae_optimizer, state["vae_optimizer"])
        super().load_state_dict(state)


def _num_prefixes(trials: TrialSteps) -> Tensor:
    """The number of prefixes of all trials together: []."""
    return (trials.valid.sum(0) + 1).sum()


def _as_input(belief: DiagonalGaussian) -> Tensor:
    """Mean and log variance: [..., 2 Z]."""
    return torch.cat([belief.mean, 2 * belief.log_std], -1)


def _check_one_hot(obs: Tensor) -> None:
    """Check that observations [K, O] are one-hot.

    Raises:
        UserError: when one is not.
    """
    if not bool(((obs == 0) | (obs == 1)).all() & (obs.sum(-1) == 1).all()):
        raise UserError("agent.reward_decoder is one_hot; must be scalar, as observations are not one-hot")
