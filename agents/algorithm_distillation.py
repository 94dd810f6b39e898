"""Algorithm distillation: a transformer that imitates whole learning histories, and so learns to learn in context.

Laskin et al. In-context reinforcement learning with algorithm distillation (2022).
Zisman et al. Emergence of in-context reinforcement learning from noise distillation (2023): histories of an expert
whose noise falls to zero, which need no reinforcement learning at all.

A causal transformer reads observations, previous actions, rewards and ends of episodes of a history, over several
episodes, and predicts the next action. As the history's agent gets better from episode to episode, so must whoever
predicts it: acting in a new task, the transformer improves without any update of its weights.

Deviations: 1. one item per step instead of three. 2. an item's keys and values are kept while it is in the window, so
they know of earlier items that have left it; the paper reads the window anew at each step. 3. the histories are written
by agents of this library (`metarl histories`), or are those of annealed experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from agents.imitation import ImitatingAgent
from agents.trial_agent import memory_item
from metarl.adaptation.attention import StackState
from metarl.adaptation.sequence import SequenceBelief
from metarl.adaptation.transformer import TransformerConfig
from metarl.checks import at_least, not_negative, positive, widths
from metarl.deployment import DeployedAgent, StepInputs
from metarl.nets.mlp import PolicyHead
from metarl.protocols import TaskFamily
from metarl.records import SampledDecision, Step, Trajectory
from metarl.rl.histories import HistorySource, HistoryWindows
from metarl.source import TrainConfig


@dataclass(frozen=True)
class ADConfig:
    """Algorithm distillation: a transformer that imitates learning histories."""

    memory: TransformerConfig = field(  # transformer that reads the steps
        default_factory=lambda: TransformerConfig(num_layers=4, positions="rotary")
    )
    hidden_size: int = 64  # width of the transformer
    context: int = 100  # number of steps in the transformer's window, which should hold several episodes
    histories: str | None = None  # folder written by `metarl histories`; None: histories of annealed experts
    num_histories: int = 500  # number of annealed experts' histories, each in a task of its own
    history_episodes: int = 50  # number of episodes per history of an annealed expert
    learning_rate: float = 1e-3  # initial step size of Adam
    final_learning_rate: float = 1e-4  # step size at the last iteration, reached linearly; at most `learning_rate`
    max_grad_norm: float = 1.0  # largest norm of the gradient

    def __post_init__(self) -> None:
        widths(self, "hidden_size")
        at_least(self, 1, "context", "num_histories", "history_episodes")
        positive(self, "learning_rate", "max_grad_norm")
        not_negative(self, "final_learning_rate")
        self.memory.check_width(self.hidden_size)
        if self.memory.positions in ("learned", "sinusoidal"):
            raise ValueError(f"positions is {self.memory.positions!r}; must be rotary or none: windows begin anywhere")

    def make_source(
        self, family: TaskFamily, train: TrainConfig, generators: Mapping[str, torch.Generator]
    ) -> HistorySource:
        """Parts of learning histories."""
        return HistorySource(self, family, train, generators)

    def make(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        *,
        num_iterations: int,
        generator: torch.Generator,
    ) -> AD:
        return AD(self, observation_space, action_space, num_iterations=num_iterations, generator=generator)


class ADNetwork(nn.Module):
    """The transformer and the policy that reads it."""

    def __init__(
        self,
        config: ADConfig,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        sizes = (config.hidden_size,)
        self.policy = PolicyHead(sizes, action_space, activation="relu", init_std=1.0, generator=generator)
        item_size = observation_space.shape[0] + self.policy.num_actions + 2
        memory: Any = config.memory.make(item_size, config.hidden_size, generator=generator)
        self.memory: SequenceBelief[StackState] = SequenceBelief(nn.Identity(), memory)


class AD(ImitatingAgent):
    """The agent: `observe` adds a step to the window, `act` samples what would come next, `update` is supervised."""

    config: ADConfig
    net: ADNetwork
    block: int | None = None  # the window moves at every step
    training_blocks: int | None = None

    def __init__(
        self,
        config: ADConfig,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        *,
        num_iterations: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__(config, ADNetwork(config, observation_space, action_space, generator), num_iterations)

    # --- acting: prior, observe and act, one step at a time ----------------------------------------------------

    def prior(self, num_tasks: int, copies: int = 1) -> StackState:
        return self.net.memory.fixed_prior(num_tasks * copies, self.config.context)

    def observe(self, state: StackState, action: Tensor | None, step: Step) -> StackState:
        encoded = None if action is None else self.net.policy.encode(action)
        return self._read(state, encoded, step)

    def act(self, state: StackState, obs: Tensor, generator: torch.Generator | None) -> SampledDecision:
        """A decision for obs [B, O], the last observation read."""
        distribution = self.net.policy(state.hidden)
        action = distribution.mode if generator is None else distribution.sample(generator)
        return SampledDecision(self.net.policy.to_env(action), distribution.log_prob(action))

    def adapt(self, state: StackState, trajectory: Trajectory[SampledDecision]) -> StackState:
        """The unchanged state: the window already holds the last steps."""
        return state

    def state_vectors(self, state: StackState) -> Tensor:
        """The transformer's output after the last step [B, H]."""
        return state.hidden

    def states_of(self, state: StackState, tasks: Tensor) -> StackState:
        return state[tasks]

    def deployed(self, num_steps: int) -> DeployedAgent:
        def step(state: StackState, inputs: StepInputs) -> tuple[Tensor, StackState]:
            encoded = torch.where(inputs.new_task[:, None], 0.0, self.net.policy.encode(inputs.action))
            state = self._read(state, encoded, inputs.step)
            return self.act(state, inputs.obs, None).action, state

        initial = self.prior(1)
        return DeployedAgent(step, initial, ("action", "reward", "episode_end"), max_items=initial.max_items)

    def _read(self, state: StackState, encoded: Tensor | None, step: Step) -> StackState:
        """The window with a step and the encoded action [B, A] that led to it; None at a trial's start."""
        if encoded is None:
            encoded = step.obs.new_zeros(len(step.obs), self.net.policy.num_actions)
        return self.net.memory.absorb(state, memory_item(step.obs, encoded, step.reward, step.episode_end))

    # --- learning ---------------------------------------------------------------------------------------------

    def update(self, experience: HistoryWindows, generator: torch.Generator) -> dict[str, float]:
        """One step of Adam on the log-likelihood of the histories' actions.

        Raises:
            FloatingPointError: when a parameter is no longer finite; the agent is unusable then.
        """
        likelihood = self._log_likelihood(experience).mean()
        norm = self._raise(likelihood)
        return {"train/log_likelihood": float(likelihood.detach()), "train/grad_norm": float(norm)}

    def _log_likelihood(self, windows: HistoryWindows) -> Tensor:
        """The log-likelihood of each action [M, C], given the steps of its window before it."""
        policy, first = self.net.policy, windows.is_first
        action = torch.where(first.unsqueeze(-1), 0.0, policy.encode(windows.last_action))
        reward = torch.where(first, 0.0, windows.last_reward)
        items = memory_item(windows.obs, action, reward, windows.last_end & ~first)
        hidden, _ = self.net.memory.read(self.net.memory.prior(len(items)), items)
        return policy(hidden).log_prob(policy.from_env(windows.action))
