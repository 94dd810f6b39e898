"""RL2: a policy with a memory that learns to learn, trained by PPO on whole trials.

Duan et al. RL2: fast reinforcement learning via slow reinforcement learning (2016).
Wang et al. Learning to reinforcement learn (2016).
Mishra et al. A simple neural attentive meta-learner (2018), for SNAIL as the memory.

The memory reads the observation, the previous action, the previous reward and whether the previous step ended an
episode; none of them is zeroed when an episode starts, and the memory is reset between trials only. Advantages are
estimated over the whole trial, so exploration in the first episode is credited with the gains of later ones.

Deviations from Duan et al.: 1. PPO (Schulman et al. 2017) instead of TRPO. 2. a critic that shares the memory, instead
of a separate one. 3. the policy and value heads also see the observation. 4. with `whole_transition`, an item also
repeats the previous observation, so it holds a full transition; the memory need not learn to retain the state first. 5.
without `credit_across_episodes`, the value after an episode is zero, whether the task or the time limit ended it. 6. by
default, observations and rewards are normalised by running moments over the training data. 7. with `truncate`,
back-propagation through time is cut every `segment` steps. 8. with `critic_sees`, the critic also reads what the policy
must infer (`metarl.rl.privileged`); then values are computed when the agent learns, as it acts without them. 9. with
`inner`, the agent also reads what a tabular learner inside the trial knows, as in RL3 (agents/inner_learner.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from agents.hyperx import HyperX, HyperXConfig
from agents.inner_learner import INNER_LEARNERS, InnerLearnerConfig, InnerState, NoInnerLearner
from agents.memories import WithMemory
from agents.ppo import PPO, Evaluated
from agents.trial_agent import (
    FEW_STEPS,
    InputMoments,
    LatentAgentConfig,
    TrialAgent,
    memory_item,
    one_later,
    policy_and_critic,
)
from metarl.adaptation.attention import CausalStack, StackState
from metarl.adaptation.no_memory import NoMemoryConfig
from metarl.adaptation.sequence import SequenceBelief, SequenceState
from metarl.checks import at_least
from metarl.deployment import DeployedAgent, StepInputs
from metarl.nets.mlp import mlp
from metarl.nets.moments import Moments
from metarl.protocols import TaskFamily
from metarl.records import ActorCriticDecision, Record, Step, Trajectory
from metarl.rl.privileged import CriticSees
from metarl.rl.trials import TrialSource
from metarl.source import TrainConfig

Experience = Trajectory[ActorCriticDecision]


@dataclass(frozen=True)
class RL2Config(LatentAgentConfig, WithMemory):
    """RL²: a recurrent policy trained by PPO."""

    whole_transition: bool = False  # whether each item of the memory's input also holds the previous observation
    # number of steps that an update keeps in memory at a time and computes twice, for long trials; None: whole trials
    segment: int | None = None
    truncate: bool = False  # whether gradients stop at the start of a segment
    inner: NoInnerLearner | InnerLearnerConfig = field(  # learner inside the trial whose estimates are inputs (RL3)
        default_factory=NoInnerLearner, metadata={"variants": INNER_LEARNERS}
    )
    # what the critic sees besides the policy's inputs, in training: the family's privileged observations, or the task
    critic_sees: CriticSees = "nothing"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_memory()
        at_least(self, 1, "segment")
        if self.truncate and self.segment is None:
            raise ValueError("truncate is True; must be False without a segment, whose start stops the gradients")
        if not isinstance(self.inner, (NoInnerLearner, InnerLearnerConfig)):
            raise ValueError(f"inner is {self.inner!r}; must be a NoInnerLearner or InnerLearnerConfig")
        if isinstance(self.memory, NoMemoryConfig) and self.writer is not None:
            raise ValueError("policy is a hypernetwork; must be heads without a memory, which it would read")

    def make_source(
        self, family: TaskFamily, train: TrainConfig, generators: Mapping[str, torch.Generator]
    ) -> TrialSource:
        """Trials in fresh tasks."""
        return TrialSource(self, family, train, generators)

    def make(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        *,
        num_iterations: int,
        generator: torch.Generator,
        privileged_size: int = 0,
    ) -> RL2:
        """A fresh agent; privileged_size: P, the size of what only the critic sees."""
        make: dict[str, Any] = {"num_iterations": num_iterations, "generator": generator}
        return RL2(self, observation_space, action_space, privileged_size=privileged_size, **make)


@dataclass(frozen=True)
class RL2State(Record):
    """The agent's state within a trial."""

    memory: SequenceState
    obs: Tensor  # [B, O], the last observation read by the memory, as the networks read it; zero before the first
    inner: InnerState | None = None  # state of the learner inside the trial, where there is one


@dataclass(frozen=True)
class Inputs(Record):
    """The networks' inputs over whole trials."""

    items: Tensor  # [T, B, item], inputs of the memory
    obs: Tensor  # [T, B, O], normalised, with the inner learner's features
    privileged: Tensor | None = None  # [T, B, P], normalised; None: the critic reads what the policy reads

    def rows(self, index: Tensor) -> Inputs:
        return self.map(lambda value: value.index_select(1, index))


@dataclass(frozen=True)
class PrivilegedMoments(InputMoments):
    """Running moments that normalise the networks' inputs, and what only the critic sees."""

    privileged: Moments  # of privileged observations [P]


class RL2Network(nn.Module):
    """The memory with its policy and value heads."""

    def __init__(
        self,
        config: RL2Config,
        obs_size: int,
        action_space: spaces.Box | spaces.Discrete,
        generator: torch.Generator,
        privileged_size: int = 0,
    ) -> None:
        super().__init__()
        make = {"activation": config.activation, "generator": generator}
        writer = config.writer
        latent_sizes = (config.memory_size,) if writer is None else (config.memory_size, writer.embedding_size)
        self.latent = mlp(latent_sizes, **make)
        self.policy, self.critic = policy_and_critic(
            config,
            action_space,
            obs_size=obs_size,
            latent_size=latent_sizes[-1],
            latent_first=True,
            generator=generator,
            privileged_size=privileged_size,
        )
        item_size = obs_size * (2 if config.whole_transition else 1) + self.policy.num_actions + config.reward_input + 1
        sizes = (item_size, *config.encoder_sizes)
        encoder = mlp(sizes, **make)
        memory: Any = config.memory.make(sizes[-1], config.hidden_size, generator=generator)
        self.memory: SequenceBelief[Any] = SequenceBelief(encoder, memory)

    def features(self, hidden: Tensor, obs: Tensor) -> Tensor:
        """The heads' inputs from the memory's output [..., H] and normalised observations [..., O]."""
        return torch.cat([self.latent(hidden), obs], -1)

    def value(self, features: Tensor, privileged: Tensor | None) -> Tensor:
        """The critic's values [...] for features [..., F] and what only it sees, normalised [..., P]."""
        return self.critic(features if privileged is None else torch.cat([features, privileged], -1)).squeeze(-1)


RL2_TWO_CORES = RL2Config(  # base settings of the robot recipes, for two cores
    hidden_size=64,
    gamma=0.97,
    lam=0.9,
    learning_rate=1e-3,
    final_learning_rate=2e-4,
    num_minibatches=8,
    entropy_coefficient=0.0,
)
RL2_FEW_STEPS = replace(RL2_TWO_CORES, **FEW_STEPS)
BLIND_PPO_FEW_STEPS = RL2Config(
    **FEW_STEPS, memory=NoMemoryConfig(), head_sizes=(64, 64), num_epochs=8, num_minibatches=16
)


class RL2(TrialAgent):
    """The agent: `act` reads the memory, `observe` writes to it, `update` runs PPO on whole trials."""

    def __init__(
        self,
        config: RL2Config,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        *,
        num_iterations: int,
        generator: torch.Generator,
        privileged_size: int = 0,
    ) -> None:
        self.config = config
        obs_size, self.inner, self.privileged_size = observation_space.shape[0], None, privileged_size
        if isinstance(config.inner, InnerLearnerConfig):
            self.inner = config.inner.make(obs_size, action_space, generator.device)
        self.obs_size = obs_size + (0 if self.inner is None else self.inner.num_features)  # as the networks read it
        self.net = RL2Network(config, self.obs_size, action_space, generator, privileged_size)
        self.ppo = PPO(config, self.net, num_iterations)
        sizes = {"obs": obs_size} | ({"privileged": privileged_size} if privileged_size else {})
        kind = PrivilegedMoments if privileged_size else InputMoments
        self.moments = kind.empty(device=generator.device, **sizes)
        if isinstance(config.bonus, HyperXConfig):
            self.hyperx = HyperX(
                config.bonus,
                obs_size=obs_size,
                belief_size=config.memory_size,
                gamma=config.gamma,
                generator=generator,
            )

    # --- acting: prior, observe and act, one step at a time ----------------------------------------------------

    def prior(self, num_tasks: int, copies: int = 1) -> RL2State:
        memory = self.net.memory.prior(num_tasks * copies)
        inner = None if self.inner is None else self.inner.prior(num_tasks * copies)
        return RL2State(memory, memory.hidden.new_zeros(num_tasks * copies, self.obs_size), inner)

    def observe(self, state: RL2State, action: Tensor | None, step: Step) -> RL2State:
        encoded = None if action is None else self.net.policy.encode(action)
        return self._read(state, encoded, step)

    def _read(self, state: RL2State, encoded: Tensor | None, step: Step) -> RL2State:
        """The state after reading a step and the encoded action [B, A] that led to it; None at a trial's start."""
        item, obs, inner = self._next_item(state, encoded, step)
        return RL2State(self.net.memory.absorb(state.memory, item), obs, inner)

    def _next_item(
        self, state: RL2State, encoded: Tensor | None, step: Step
    ) -> tuple[Tensor, Tensor, InnerState | None]:
        """What `_read` reads: the memory's next input [B, item], what the networks see [B, O], the inner state."""
        if encoded is None:
            encoded = step.obs.new_zeros(len(step.obs), self.net.policy.num_actions)
        inner = None
        if self.inner is not None and state.inner is not None:
            inner = self.inner.observe(state.inner, encoded, step)
        obs = self._seen(step.obs, inner)
        return self._item(state.obs, obs, encoded, step.reward, step.episode_end), obs, inner

    def _seen(self, obs: Tensor, inner: InnerState | None) -> Tensor:
        """The observation as the networks read it [B, O]: normalised, with the inner learner's features."""
        normalised = self._normalised_obs(obs)
        if self.inner is None or inner is None:
            return normalised
        return torch.cat([normalised, self.inner.features(inner)], -1)

    def act(self, state: RL2State, obs: Tensor, generator: torch.Generator | None) -> ActorCriticDecision:
        """A decision for obs [B, O], the last observation read by the memory; its value is NaN if that needs more."""
        features = self.net.features(state.memory.hidden, self._seen(obs, state.inner))
        distribution = self.net.policy(features)
        action = distribution.mode if generator is None else distribution.sample(generator)
        log_prob = distribution.log_prob(action)
        value = torch.full_like(log_prob, torch.nan) if self.privileged_size else self.net.value(features, None)
        return ActorCriticDecision(self.net.policy.to_env(action), log_prob, value)

    def state_vectors(self, state: RL2State) -> Tensor:
        """The memory's output [B, H]."""
        return state.memory.hidden

    def attention(self, state: RL2State, action: Tensor | None, step: Step) -> Tensor | None:
        """How much the memory attends to each step so far as it reads this one: [B, steps]; None without attention."""
        memory = self.net.memory.memory
        if not isinstance(memory, CausalStack):
            return None
        assert isinstance(state.memory, StackState)
        encoded = None if action is None else self.net.policy.encode(action)
        return memory.attention(state.memory, self.net.memory.encoder(self._next_item(state, encoded, step)[0]))

    def deployed(self, num_steps: int) -> DeployedAgent:
        def step(state: RL2State, inputs: StepInputs) -> tuple[Tensor, RL2State]:
            encoded = torch.where(inputs.new_task[:, None], 0.0, self.net.policy.encode(inputs.action))
            state = self._read(state, encoded, inputs.step)
            return self.act(state, inputs.obs, None).action, state

        memory = self.net.memory.fixed_prior(1, num_steps)
        initial = replace(self.prior(1), memory=memory)
        reads = ["action", *(["reward"] if self.config.reward_input or self.inner is not None else []), "episode_end"]
        reads += [] if self.inner is None else ["next_obs"]
        return DeployedAgent(step, initial, tuple(reads), max_items=memory.max_items)

    # --- learning ---------------------------------------------------------------------------------------------

    def update(self, trial: Sequence[Experience], generator: torch.Generator) -> dict[str, float]:
        """PPO on one batch of trials of a single block; every row of its trajectory is a whole trial.

        Raises:
            FloatingPointError: when a parameter is no longer finite; the agent is unusable then.
        """
        trajectory = self._valued(*trial)
        bonus, metrics = self._bonus(trajectory, generator)
        paid = replace(trajectory, reward=trajectory.reward + bonus)
        self._see_returns(paid)
        inputs, decision = self._inputs(trajectory), trajectory.decision

        def evaluate(rows: Tensor) -> Evaluated:
            return self._evaluate(inputs.rows(rows), decision.action.index_select(1, rows))

        metrics |= self._update_head(self.net.policy, paid, evaluate, generator)
        # After the update: acting and learning must use the same normalisation.
        privileged = trajectory.privileged if self.privileged_size else None
        self.moments = self.moments.with_steps(trajectory, **({} if privileged is None else {"privileged": privileged}))
        return {f"train/{name}": value for name, value in metrics.items()}

    def task_gradients(self, trial: Sequence[Experience], num_tasks: int, generator: torch.Generator) -> Tensor:
        """The gradients of PPO's loss, without bonus: [num_tasks, P]."""
        trajectory = self._valued(*trial)
        inputs, decision = self._inputs(trajectory), trajectory.decision

        def evaluate(rows: Tensor) -> Evaluated:
            return self._evaluate(inputs.rows(rows), decision.action.index_select(1, rows))

        return self._policy_gradients(list(self.net.parameters()), trajectory, evaluate, num_tasks)

    def _valued(self, trajectory: Experience) -> Experience:
        """The trajectory with the critic's values, where acting could not know them."""
        if not self.privileged_size:
            return trajectory
        decision = trajectory.decision
        with torch.no_grad():
            value = self._evaluate(self._inputs(trajectory), decision.action).value
        return replace(trajectory, decision=replace(decision, value=value))

    def _reached(self, trajectory: Experience, generator: torch.Generator) -> tuple[Tensor, None]:
        longer = trajectory.map(lambda value: torch.cat([value, value[-1:]]))  # so the memory reads the last step
        goes_on = torch.cat([trajectory.valid[1:], torch.zeros_like(trajectory.valid[:1])]).unsqueeze(-1)
        after = torch.where(goes_on, longer.obs[1:], trajectory.next_obs)  # what the memory reads after each step
        longer = replace(longer, obs=torch.cat([trajectory.obs[:1], after]))
        prior = self.net.memory.prior(trajectory.valid.shape[1])
        hidden = self.net.memory.unroll(prior, self._inputs(longer).items)[1:]  # after each step
        return torch.cat([self._normalised_obs(trajectory.next_obs), hidden], -1), None

    def _evaluate(self, inputs: Inputs, action: Tensor) -> Evaluated:
        """The current nets' outputs for past actions [T, B, ...], in environment units."""
        num_steps, num_rows, _ = inputs.obs.shape
        state = self.net.memory.prior(num_rows)
        if self.config.segment is None:
            return self._evaluate_segment(state, inputs, action)[0]
        parts = []
        for first in range(0, num_steps, self.config.segment):
            steps = slice(first, first + self.config.segment)
            if self.config.truncate:
                state = state.detach()
            part, state = checkpoint(self._evaluate_segment, state, inputs[steps], action[steps], use_reentrant=False)  # pyright: ignore[reportGeneralTypeIssues]
            parts.append(part)
        return Evaluated(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def _evaluate_segment(
        self, state: SequenceState, inputs: Inputs, action: Tensor
    ) -> tuple[Evaluated, SequenceState]:
        """The outputs for some steps of the trials, from the memory before them, and the memory after them."""
        hidden, state = self.net.memory.unroll_on(state, inputs.items)
        features = self.net.features(hidden, inputs.obs)
        distribution = self.net.policy(features)
        value = self.net.value(features, inputs.privileged)
        log_prob = distribution.log_prob(self.net.policy.from_env(action))
        return Evaluated(log_prob, value, distribution.entropy()), state

    # --- inputs -----------------------------------------------------------------------------------------------

    def _inputs(self, trajectory: Experience) -> Inputs:
        obs = self._normalised_obs(trajectory.obs)
        if self.inner is not None:
            actions = self.net.policy.encode(trajectory.decision.action)
            obs = torch.cat([obs, self.inner.unrolled(trajectory, actions)], -1)
        return Inputs(self._items(trajectory, obs), obs, self._privileged(trajectory))

    def _privileged(self, trajectory: Experience) -> Tensor | None:
        """What only the critic sees, normalised [T, B, P].

        Raises:
            ValueError: when the environment does not give it.
        """
        if not self.privileged_size:
            return None
        if trajectory.privileged is None:
            raise ValueError("the trajectory has no privileged observations, which the critic sees")
        return self.moments.privileged.standardise(trajectory.privileged)

    def _items(self, trajectory: Experience, obs: Tensor) -> Tensor:
        """The memory's inputs at each step [T, B, item]: the observation and the previous step's results."""
        action = self.net.policy.encode(trajectory.decision.action)
        before = (one_later(value) for value in (obs, action, trajectory.reward, trajectory.episode_end))
        previous_obs, action, reward, episode_end = before
        return self._item(previous_obs, obs, action, reward, episode_end)

    def _item(self, previous_obs: Tensor, obs: Tensor, action: Tensor, reward: Tensor, episode_end: Tensor) -> Tensor:
        """One item of the memory's input [..., item] from normalised obs, encoded action, raw reward, end flag."""
        scaled = self._scaled_reward(reward) if self.config.reward_input else None
        item = memory_item(obs, action, scaled, episode_end)
        return torch.cat([previous_obs, item], -1) if self.config.whole_transition else item

    # --- saving -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {"net": self.net.state_dict(), **super().state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        super().load_state_dict(state)
