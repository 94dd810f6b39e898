"""The contracts between the parts: signatures and their meaning, no behaviour.

Agents never import environments and environments never import agents; both are written against this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from metarl.records import Decision, Record, Step, Trajectory

Split = Literal["train", "val", "test", "ood"]

State = TypeVar("State")
Context = TypeVar("Context", contravariant=True)
D = TypeVar("D", bound=Decision)


@runtime_checkable
class VectorEnv(Protocol):
    """B rows of one task family on one device: torch in, torch out, same-step autoreset.

    A row that ends an episode starts the next one in the same task within the same call of `step`. The environment
    knows nothing of trials; `metarl.rl.rollouts.collect` counts episodes.
    """

    @property
    def num_rows(self) -> int: ...  # B

    @property
    def device(self) -> torch.device: ...

    @property
    def observation_space(self) -> spaces.Box: ...  # of one row

    @property
    def action_space(self) -> spaces.Box | spaces.Discrete: ...  # of one row

    def reset(self, tasks: Any) -> Step:
        """Give the rows their tasks and start a first episode in each.

        `tasks` has leading axis N, and N divides B: each task gets B / N contiguous rows.
        """
        ...

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        """One step of all rows, or of those where `active` [B] (bool) is true.

        Actions outside a Box are clipped to it. Rows that are not active are not simulated: they keep their state,
        repeat their observation, and report a zero reward and no end. The step's tensors are the caller's to keep.
        """
        ...


@runtime_checkable
class Renders(Protocol):
    """What a `VectorEnv` has beside, where its rows can be seen."""

    @property
    def seconds_per_step(self) -> float: ...  # how long a step lasts on the screen

    def render(self, row: int = 0) -> NDArray[np.uint8]:
        """A picture [H, W, 3] of what the last step led to in a row, before any reset; after `reset`, of the start."""
        ...


@runtime_checkable
class Restarts(Protocol):
    """What a `VectorEnv` has beside, where some rows can be given other tasks while the others go on."""

    def restart(self, tasks: Any, rows: Tensor) -> Tensor:
        """Start an episode where `rows` [B] (bool) is true, each in its own of `tasks` [B]; what to act on, [B, O]."""
        ...


@runtime_checkable
class Measures(Protocol):
    """What a `VectorEnv` has beside, where a return alone can't tell skill from staying alive."""

    @property
    def metric_names(self) -> tuple[str, ...]: ...  # of the entries of `Step.metrics`, such as ("velocity_error",)


@runtime_checkable
class TaskFamily(Protocol):
    """A distribution over tasks with named splits: a frozen dataclass whose fields are the variant's arguments.

    Its tasks are records of a type of its own; only the family and its environments look inside them.
    """

    @property
    def name(self) -> str: ...  # the catalog's name, e.g. "grid_navi"

    @property
    def horizon(self) -> int: ...  # steps after which an episode is truncated

    @property
    def num_episodes(self) -> int: ...  # episodes in a trial, as the literature evaluates this family

    @property
    def observation_space(self) -> spaces.Box: ...

    @property
    def action_space(self) -> spaces.Box | spaces.Discrete: ...

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> Record:
        """Tasks with leading axis `num_tasks`, on the generator's device. An undeclared split raises ValueError."""
        ...

    def make_env(self, num_rows: int, generator: torch.Generator) -> VectorEnv:
        """A vectorised environment on the generator's device; all its randomness comes from the generator."""
        ...

    def bounds(self, tasks: Any, num_episodes: int) -> Mapping[str, Tensor | Sequence[float]]:
        """Known expected returns on these tasks, such as "bayes_optimal", "oracle" or "random"; empty: none known.

        By episode and task, [num_episodes, N]; or by episode alone, where only the mean over tasks is known.
        """
        ...


class Adapts(Protocol[State, Context]):
    """What is known of a task, and how data change it: the first two of the three verbs. Agents need no more."""

    def prior(self, num_tasks: int) -> State:
        """What the learner believes before it has seen anything of a task."""
        ...

    def adapt(self, state: State, context: Context) -> State:
        """The state after absorbing data [N, K, ...]; the old state is left as it was."""
        ...


class Adaptation(Adapts[State, Context], Protocol[State, Context]):
    """The three verbs that all meta-learners share; they differ only in what the state is."""

    def predict(self, state: State, x: Tensor) -> Tensor:
        """Outputs [N, Q, out] for inputs [N, Q, in] under the adapted state."""
        ...


class Agent(Protocol[State, D]):
    """A learner that acts.

    Within an episode `observe` absorbs every step (RL2's memory; nothing for agents that adapt between episodes);
    after each block of episodes `adapt` absorbs the block's trajectory (gradient steps, a posterior; nothing for RL2).
    Nothing passes between the episodes of one block, so that they run side by side, in rows of their own.
    """

    block: int | None  # episodes in each task between two calls of `adapt`; None: the whole trial is one block
    training_blocks: int | None  # in a trial of meta-training; None: as many as the trial has episodes

    def prior(self, num_tasks: int, copies: int = 1) -> State:
        """What is believed of each task before anything is seen of it, for `copies` rows in each."""
        ...

    def observe(self, state: State, action: Tensor | None, step: Step) -> State:
        """Absorb what the environment has just returned; `action` is None for the first step of a trial."""
        ...

    def act(self, state: State, obs: Tensor, generator: torch.Generator | None) -> D:
        """Decide on obs [B, O]; without a generator, the policy's mode instead of a sample."""
        ...

    def adapt(self, state: State, trajectory: Trajectory[D]) -> State: ...

    def update(self, experience: Any, generator: torch.Generator, /) -> dict[str, float]:
        """The meta-update from what the agent's source draws; returns what is worth logging under `train/`.

        experience: of a `TrialSource`, the trajectories of a batch of trials, block by block; of a `ReplaySource`, the
        replay.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything an exact resume needs: tensors and plain Python only."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@runtime_checkable
class PosteriorSampling(Protocol[State]):
    """What an `Agent` has beside, where it acts through an episode as if one draw from its belief were the task."""

    def resample_latent(self, state: State, episode_start: Tensor, generator: torch.Generator | None) -> State:
        """Draw anew for the rows that begin an episode, episode_start [B] bool; without a generator, the mode.

        Called before the first action of each episode.
        """
        ...


class AgentConfig(Protocol):
    """A frozen dataclass beside the agent it configures."""

    def make(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        *,
        num_iterations: int,
        generator: torch.Generator,
    ) -> Agent[Any, Any]:
        """A fresh agent on the generator's device, initialised from it; `num_iterations` ends its schedules."""
        ...
