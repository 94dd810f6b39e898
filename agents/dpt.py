"""DPT: a decision-pretrained transformer, which learns in context what posterior sampling would do.

Lee et al. Supervised pretraining can learn in-context reinforcement learning (2023).

Pretraining is supervised: a transformer reads independent transitions of a task and predicts the optimal action in
other states; the tasks' optimal actions are known. What minimises this loss is the posterior distribution of the
optimal action, so sampling from it explores as posterior sampling does. Acting, the context is the trial so far.

Posterior sampling keeps one hypothesis for an episode, and walks straight to where its goal would be. A policy over
actions has no hypothesis to keep: with fresh noise at each step it walks at random among the optimal actions of all
goals that remain. With `hold`, the noise that samples actions is kept for some steps, so the walk keeps its direction;
each action still has the probability that the transformer gives it.

Deviations: 1. the context moves with every step of a trial, not with every episode; it holds as many of the last
transitions as in pretraining. 2. where several actions are optimal, the label is uniform over them. 3. a query is not
the first item, but an item after the transitions that it is about, which no other item sees: one pass over a context
answers another query after each transition, and acting need not read the context again. 4. transitions have no
positions, as their order does not matter. 5. with bandits, the arms of the context are drawn uniformly. 6. `hold`. 7.
by default the transitions of a context are independent, and not those of a random policy's trials; with `walks`, some
tasks have those of a walk, and with `own` those of the agent's own trials, as in DAgger (metarl/rl/own_trials.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from gymnasium import spaces
from torch import Tensor, nn

from agents.imitation import ImitatingAgent
from metarl.adaptation.attention import CausalStack, StackState
from metarl.adaptation.sequence import SequenceBelief
from metarl.adaptation.transformer import TransformerConfig
from metarl.checks import at_least, in_range, not_negative, positive, widths
from metarl.deployment import DeployedAgent, StepInputs, where
from metarl.nets.distributions import Categorical
from metarl.nets.mlp import PolicyHead
from metarl.protocols import TaskFamily
from metarl.records import LabelledTransitions, Record, SampledDecision, Step, Trajectory
from metarl.rl.labelled_source import LabelledSource
from metarl.source import TrainConfig


@dataclass(frozen=True)
class DPTConfig:
    """Decision-pretrained transformer: it imitates optimal actions given other transitions of the task."""

    memory: TransformerConfig = field(  # transformer that reads the transitions
        default_factory=lambda: TransformerConfig(num_layers=4, positions="none")
    )
    hidden_size: int = 32  # width of the transformer
    head_sizes: tuple[int, ...] = ()  # hidden layers between the transformer's answer to a query and the action
    context: int = 100  # number of transitions per task in pretraining
    walks: float = 0.0  # fraction of tasks whose transitions in pretraining are successive steps of a random walk
    own: float = 0.0  # fraction of tasks whose transitions in pretraining are steps of the agent's own trials
    own_every: int = 20  # number of iterations between batches of own trials
    own_kept: int = 8  # number of batches of own trials that are kept
    hold: int = 1  # number of steps for which the noise that samples actions is kept; 1: fresh noise at each step
    learning_rate: float = 1e-3  # initial step size of Adam
    final_learning_rate: float = 1e-4  # step size at the last iteration, reached linearly; at most `learning_rate`
    max_grad_norm: float = 1.0  # largest norm of the gradient

    def __post_init__(self) -> None:
        widths(self, "hidden_size", "head_sizes")
        at_least(self, 1, "context", "hold", "own_every", "own_kept")
        in_range(self, 0, 1, "walks", "own")
        if self.walks + self.own > 1:
            raise ValueError(f"walks is {self.walks} and own {self.own}; their sum must be at most 1")
        positive(self, "learning_rate", "max_grad_norm")
        not_negative(self, "final_learning_rate")
        self.memory.check_width(self.hidden_size)
        if self.memory.positions == "learned":
            raise ValueError("positions is 'learned'; must be another kind: trials are longer than the contexts here")

    def make_source(
        self, family: TaskFamily, train: TrainConfig, generators: Mapping[str, torch.Generator]
    ) -> LabelledSource:
        """Labelled transitions in fresh tasks."""
        return LabelledSource(
            self,
            family,
            train,
            generators,
            num_steps=self.context,
            walks=self.walks,
            own=self.own,
            own_every=self.own_every,
            own_kept=self.own_kept,
        )

    def make(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        *,
        num_iterations: int,
        generator: torch.Generator,
    ) -> DPT:
        return DPT(self, observation_space, action_space, num_iterations=num_iterations, generator=generator)


@dataclass(frozen=True)
class DPTState(Record):
    """The agent's state within a trial."""

    memory: StackState
    obs: Tensor  # [B, O], the last observation
    noise: Tensor  # [B, 2, A], uniform numbers, from which the noise of all steps of the episode is made
    num_steps: Tensor  # [B] int64, steps of the episode so far


class DPTNetwork(nn.Module):
    """The transformer and the head that answers queries."""

    def __init__(
        self,
        config: DPTConfig,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        obs_size = observation_space.shape[0]
        sizes = (config.hidden_size, *config.head_sizes)
        self.policy = PolicyHead(sizes, action_space, activation="relu", init_std=1.0, generator=generator)
        item_size = 2 * obs_size + self.policy.num_actions + 1
        memory: CausalStack = config.memory.make(item_size, config.hidden_size, generator=generator)
        self.memory: SequenceBelief[StackState] = SequenceBelief(nn.Identity(), memory)

    def answers(self, state: StackState, query: Tensor) -> Tensor:
        """The logits [B, A] of the actions in queries [B, O], given a context."""
        hidden = self.memory.memory.ask(state, self.questions(query).unsqueeze(1))
        return self.policy(hidden.squeeze(1)).logits

    def answers_after_each(self, items: Tensor, query: Tensor) -> Tensor:
        """The logits [N, K + 1, A] in queries [N, K + 1, O], each after so many of the items [N, K, item]."""
        stack = self.memory.memory
        assert isinstance(stack, CausalStack)
        num_tasks, num_items, item_size = items.shape
        mixed = items.new_zeros(num_tasks, 2 * num_items + 1, item_size)
        mixed[:, ::2], mixed[:, 1::2] = self.questions(query), items
        alone = torch.arange(2 * num_items + 1, device=items.device) % 2 == 0
        hidden, _ = stack.read_apart(stack.prior(num_tasks), mixed, alone)
        return self.policy(hidden[:, ::2]).logits

    def questions(self, query: Tensor) -> Tensor:
        """Queries [..., O] as the transformer reads them; that they have no action tells them from transitions."""
        action, reward = query.new_zeros(*query.shape[:-1], self.policy.num_actions), query.new_zeros(query.shape[:-1])
        return self.items(query, action, reward, torch.zeros_like(query))

    def items(self, obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor) -> Tensor:
        """Transitions with one-hot actions as the transformer reads them: [..., item]."""
        return torch.cat([obs, action, reward.unsqueeze(-1), next_obs], -1)


class DPT(ImitatingAgent):
    """The agent: `observe` adds a transition to the context, `act` samples an action, `update` is supervised."""

    config: DPTConfig
    net: DPTNetwork
    block: int | None = None  # the context moves at every step
    training_blocks: int | None = None

    def __init__(
        self,
        config: DPTConfig,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        *,
        num_iterations: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__(config, DPTNetwork(config, observation_space, action_space, generator), num_iterations)
        self.obs_size = observation_space.shape[0]

    # --- acting: prior, observe and act, one step at a time ----------------------------------------------------

    def prior(self, num_tasks: int, copies: int = 1) -> DPTState:
        num_rows = num_tasks * copies
        memory = self.net.memory.fixed_prior(num_rows, self.config.context + 1)  # with a place for the query
        obs = memory.hidden.new_zeros(num_rows, self.obs_size)
        noise = obs.new_full((num_rows, 2, self.net.policy.num_actions), 0.5)
        return DPTState(memory, obs, noise, torch.zeros(num_rows, dtype=torch.int64, device=obs.device))

    def resample_latent(self, state: DPTState, episode_start: Tensor, generator: torch.Generator | None) -> DPTState:
        """Fresh noise for the rows that start an episode."""
        noise = state.noise
        if generator is not None:
            drawn = torch.rand(noise.shape, generator=generator, device=noise.device)
            noise = torch.where(episode_start[:, None, None], drawn, noise)
        return replace(state, noise=noise, num_steps=torch.where(episode_start, 0, state.num_steps))

    def observe(self, state: DPTState, action: Tensor | None, step: Step) -> DPTState:
        if action is None:
            return replace(state, obs=step.obs)
        item = self.net.items(state.obs, self.net.policy.encode(action), step.reward, step.next_obs)
        memory = self.net.memory.absorb(state.memory, item)
        return replace(state, memory=memory, obs=step.obs, num_steps=state.num_steps + 1)

    def act(self, state: DPTState, obs: Tensor, generator: torch.Generator | None) -> SampledDecision:
        """A decision for obs [B, O]."""
        distribution = Categorical(self.net.answers(state.memory, obs))
        if generator is None:
            action = distribution.mode
        elif self.config.hold == 1:
            action = distribution.sample(generator)
        else:
            action = (distribution.logits + self._held_noise(state)).argmax(-1)
        return SampledDecision(action, distribution.log_prob(action))

    def _held_noise(self, state: DPTState) -> Tensor:
        """Gumbel noise [B, A], the same for `hold` steps; that of different times is pairwise independent."""
        first, step = state.noise.unbind(1)
        uniform = (first + (state.num_steps // self.config.hold)[:, None] * step) % 1
        return _gumbel(uniform)

    def adapt(self, state: DPTState, trajectory: Trajectory[SampledDecision]) -> DPTState:
        """The unchanged state: the context already holds the last steps."""
        return state

    def state_vectors(self, state: DPTState) -> Tensor:
        """The transformer's output after the last transition [B, H]."""
        return state.memory.hidden

    def states_of(self, state: DPTState, tasks: Tensor) -> DPTState:
        return state[tasks]

    def deployed(self, num_steps: int) -> DeployedAgent:
        """The agent's step; it samples from what it predicts by the noise, and acts by the mode where that is zeros."""

        def step(state: DPTState, inputs: StepInputs) -> tuple[Tensor, DPTState]:
            first = inputs.new_task
            read = self.observe(state, inputs.action, inputs.step)
            count = torch.where(first | inputs.episode_end, 0, read.num_steps)
            fresh = (count % self.config.hold == 0)[:, None]
            noise = torch.where(fresh, inputs.noise, state.noise)
            state = DPTState(where(first, state.memory, read.memory), inputs.obs, noise, count)
            gumbel = _gumbel(torch.special.ndtr(noise))  # equal for all actions where the noise is zeros
            return (self.net.answers(state.memory, inputs.obs) + gumbel).argmax(-1), state

        prior, num_actions = self.prior(1), self.net.policy.num_actions
        initial = replace(prior, noise=prior.noise.new_zeros(1, num_actions))
        return DeployedAgent(
            step,
            initial,
            ("action", "reward", "episode_end", "next_obs", "noise"),
            noise_size=num_actions,
            max_items=initial.memory.max_items,
        )

    # --- learning ---------------------------------------------------------------------------------------------

    def update(self, experience: LabelledTransitions, generator: torch.Generator) -> dict[str, float]:
        """One step of Adam on the log-likelihood of optimal actions after every number of transitions.

        Raises:
            FloatingPointError: when a parameter is no longer finite; the agent is unusable then.
        """
        likelihood = self._log_likelihood(experience)  # [K + 1]
        norm = self._raise(likelihood.mean())
        likelihood = likelihood.detach()
        by_context = {"empty": likelihood[0], "whole": likelihood[-1]}
        return {
            "train/log_likelihood": float(likelihood.mean()),
            **{f"train/log_likelihood_{name}_context": float(value) for name, value in by_context.items()},
            "train/grad_norm": float(norm),
        }

    def _log_likelihood(self, data: LabelledTransitions) -> Tensor:
        """The mean log-likelihood of optimal actions after each number of transitions: [K + 1]."""
        items = self.net.items(data.obs, self.net.policy.encode(data.action), data.reward, data.next_obs)
        logits = self.net.answers_after_each(items, data.query)
        return (data.optimal * logits.log_softmax(-1)).sum(-1).mean(0)


def _gumbel(uniform: Tensor) -> Tensor:
    """Gumbel noise from uniform numbers between zero and one."""
    tiny = torch.finfo(uniform.dtype).eps
    return -(-uniform.clamp(tiny, 1 - tiny).log()).log()
