"""The interfaces between the parts: signatures and their meaning, no behaviour.

Agents never import environments and environments never import agents; both implement the interfaces in this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from metarl.records import Decision, LabelledTransitions, Record, Step, Trajectory

Split = Literal["train", "val", "test", "ood"]

State = TypeVar("State")
Context = TypeVar("Context", contravariant=True)
D = TypeVar("D", bound=Decision)


@runtime_checkable
class VectorEnv(Protocol):
    """B rows of one task family on one device: torch in, torch out, same-step autoreset.

    A row that ends an episode starts the next one in the same task within the same call of `step`. The environment has
    no notion of trials; `metarl.rl.rollouts.collect` counts episodes.
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
        """Assign tasks to the rows and start the first episode in each.

        `tasks` has leading axis N, and N divides B: each task gets B / N contiguous rows.
        """
        ...

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        """One step of all rows, or of those where `active` [B] (bool) is true.

        Actions outside a Box are clipped to it. Rows that are not active are not simulated: they keep their state,
        repeat their observation, and report zero reward and no end. The caller may keep the returned tensors.
        """
        ...


@runtime_checkable
class Renders(Protocol):
    """Optional attributes of a `VectorEnv` that can be rendered."""

    @property
    def seconds_per_step(self) -> float: ...  # duration of a step in a video

    def render(self, row: int = 0) -> NDArray[np.uint8]:
        """An image [H, W, 3] of a row after its last step, before any reset; after `reset`, of its initial state."""
        ...


@runtime_checkable
class Restarts(Protocol):
    """An optional method of a `VectorEnv` that can assign new tasks to some rows while the others continue."""

    def restart(self, tasks: Any, rows: Tensor) -> Tensor:
        """Start an episode where `rows` [B] (bool) is true, each in its own of `tasks` [B]; returns obs [B, O]."""
        ...


@runtime_checkable
class Measures(Protocol):
    """An optional attribute of a `VectorEnv` with metrics besides the return."""

    @property
    def metric_names(self) -> tuple[str, ...]: ...  # names of the entries of `Step.metrics`, e.g. ("velocity_error",)


@runtime_checkable
class EpisodesOfOneLength(Protocol):
    """An optional attribute of a `VectorEnv`, by which a rollout's length is known without a look at its rows."""

    @property
    def steps_per_episode(self) -> int | None: ...  # of every episode; None where tasks may end one early


@runtime_checkable
class TaskFamily(Protocol):
    """A distribution over tasks with named splits: a frozen dataclass whose fields select the variant.

    Its tasks are records of its own type; only the family and its environments read their fields.
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
        """Tasks with leading axis `num_tasks`, on the generator's device.

        Raises:
            ValueError: when the family does not declare the split.
        """
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
    """The operations prior and adapt, which are all that agents need."""

    def prior(self, num_tasks: int) -> State:
        """The state before any data of a task."""
        ...

    def adapt(self, state: State, context: Context) -> State:
        """The state after absorbing data [N, K, ...]; the old state is unchanged."""
        ...


class Adaptation(Adapts[State, Context], Protocol[State, Context]):
    """The three operations shared by all meta-learners, which differ only in their state."""

    def predict(self, state: State, x: Tensor) -> Tensor:
        """Outputs [N, Q, out] for inputs [N, Q, in] under the adapted state."""
        ...


class Agent(Protocol[State, D]):
    """A learner that acts.

    Within an episode, `observe` absorbs every step (RL2's memory; a no-op for agents that adapt between episodes);
    after each block of episodes, `adapt` absorbs the block's trajectory (gradient steps, a posterior; a no-op for RL2).
    The episodes of one block are independent and run in parallel, each in its own row.
    """

    block: int | None  # episodes per task between two calls of `adapt`; None: the whole trial is one block
    training_blocks: int | None  # blocks per trial in meta-training; None: the number of episodes of the trial

    def prior(self, num_tasks: int, copies: int = 1) -> State:
        """The state before any data, for `copies` rows of each task."""
        ...

    def observe(self, state: State, action: Tensor | None, step: Step) -> State:
        """The state after a step of the environment; `action` is None for the first step of a trial."""
        ...

    def act(self, state: State, obs: Tensor, generator: torch.Generator | None) -> D:
        """A decision for obs [B, O]; generator: None for the policy's mode instead of a sample."""
        ...

    def adapt(self, state: State, trajectory: Trajectory[D]) -> State: ...

    def update(self, experience: Any, generator: torch.Generator, /) -> dict[str, float]:
        """The meta-update from the experience drawn by the agent's source; returns metrics to log under `train/`.

        experience: from a `TrialSource`, the trajectories of a batch of trials, one per block; from a `ReplaySource`,
        the replay.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything an exact resume needs: tensors and plain Python only."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@runtime_checkable
class PosteriorSampling(Protocol[State]):
    """An optional method of an `Agent` that acts on one posterior sample per episode."""

    def resample_latent(self, state: State, episode_start: Tensor, generator: torch.Generator | None) -> State:
        """Resample for rows that start an episode, episode_start [B] bool; generator: None for the mode.

        Called before the first action of each episode.
        """
        ...


@runtime_checkable
class GroupsTasks(Protocol):
    """An optional method of a `TaskFamily` whose tasks are of several kinds, which evaluations show one by one too."""

    def groups(self, tasks: Any) -> list[str]:
        """The name of each task's kind, [N]."""
        ...


@runtime_checkable
class KnowsVersions(Protocol):
    """An optional method of a `TaskFamily` whose environments may run in another interpreter than ours."""

    def versions(self) -> dict[str, str]:
        """The versions of that interpreter and of its packages, by name; empty where it is ours."""
        ...


@runtime_checkable
class LabelsActions(Protocol):
    """An optional method of a `TaskFamily` with discrete actions whose optimal actions are known."""

    def labelled_transitions(self, tasks: Any, num_steps: int, generator: torch.Generator) -> LabelledTransitions:
        """`num_steps` independent transitions in each task, and one query more with the optimal actions."""
        ...


@runtime_checkable
class LabelsWalks(LabelsActions, Protocol):
    """One that can also draw a task's transitions as successive steps."""

    def labelled_walks(self, tasks: Any, num_steps: int, generator: torch.Generator) -> LabelledTransitions:
        """The same, with `num_steps` successive transitions of a random walk in each task."""
        ...


@runtime_checkable
class KnowsActions(Protocol):
    """An optional method of a `TaskFamily` with discrete actions whose optimal actions are known in any observation."""

    def optimal_actions(self, tasks: Any, obs: Tensor) -> Tensor:
        """Probabilities [B, A], spread over the optimal actions, where obs [B, O] is seen in each of B tasks."""
        ...


@runtime_checkable
class ShowsState(Protocol[State]):
    """Optional methods of an `Agent` that let probes and diagnoses look at its state, and exchange states of tasks."""

    def state_vectors(self, state: State) -> Tensor:
        """What the state holds of each of N tasks, as a vector: [N, D]."""
        ...

    def states_of(self, state: State, tasks: Tensor) -> State:
        """The state for M tasks that have the states of these tasks [M], where one may come several times."""
        ...


@runtime_checkable
class ShowsAttention(Protocol):
    """An optional method of an `Agent` whose memory may look back at single steps."""

    def attention(self, state: Any, action: Tensor | None, step: Step) -> Tensor | None:
        """How much it attends to each step so far, this one last, as it observes this one: [B, steps].

        Rows sum to one; None without attention. Arguments as for `observe`, which is called afterwards.
        """
        ...


@runtime_checkable
class ShowsGradients(Protocol):
    """An optional method of any learner that lets diagnoses compare what tasks ask of its meta-parameters."""

    def task_gradients(self, experience: Any, num_tasks: int, generator: torch.Generator) -> Tensor:
        """The gradient of the outer loss of each task alone, at the current meta-parameters: [num_tasks, P].

        experience: as for `update`, in `num_tasks` tasks, with equally many rows of each where it acts.
        """
        ...


class AgentConfig(Protocol):
    """The configuration of an agent: a frozen dataclass, defined in the agent's own file."""

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
