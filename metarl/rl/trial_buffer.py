"""A buffer of recent trials, and the source of trials that fills it: for what is learned from more than one batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

import torch
from gymnasium import spaces
from torch import Tensor
from torch.utils import _pytree as pytree

from metarl.parallel import Share, current
from metarl.protocols import Agent, AgentConfig, TaskFamily
from metarl.records import Record, Trajectory, lengthened
from metarl.rl.trials import Trial, TrialSource
from metarl.source import Draw, TrainConfig


@dataclass(frozen=True)
class TrialSteps(Record):
    """The stored fields of whole trials; zero after a trial's end."""

    obs: Tensor  # [T, M, O]
    action: Tensor  # [T, M, A], in environment units; [T, M] int64 if discrete
    reward: Tensor  # [T, M]
    next_obs: Tensor  # [T, M, O], before any reset
    valid: Tensor  # [T, M] bool: false after the trial's end

    @classmethod
    def of(cls, trajectory: Trajectory[Any]) -> Self:
        """The steps of a trajectory whose rows are whole trials."""
        valid, decision = trajectory.valid, trajectory.decision
        obs, action, reward, next_obs = (
            value * valid.view(*valid.shape, *[1] * (value.ndim - 2))
            for value in (trajectory.obs, decision.action, trajectory.reward, trajectory.next_obs)
        )
        return cls(obs, action, reward, next_obs, valid)

    @classmethod
    def blank(cls, obs_size: int, action_size: int | None, device: torch.device | str) -> Self:
        """One step of zeros; action_size: None for discrete actions."""
        obs, zero = torch.zeros(obs_size, device=device), torch.zeros((), device=device)
        action = zero.long() if action_size is None else torch.zeros(action_size, device=device)
        return cls(obs, action, zero, obs, zero.bool())


@dataclass(frozen=True)
class EndedTrialSteps(TrialSteps):
    """The stored fields of whole trials with how their episodes ended, for critics."""

    terminated: Tensor  # [T, M] bool
    truncated: Tensor  # [T, M] bool

    @classmethod
    def of(cls, trajectory: Trajectory[Any]) -> Self:
        steps = TrialSteps.of(trajectory)
        terminated, truncated = trajectory.terminated & steps.valid, trajectory.truncated & steps.valid
        return cls(**vars(steps), terminated=terminated, truncated=truncated)

    @classmethod
    def blank(cls, obs_size: int, action_size: int | None, device: torch.device | str) -> Self:
        step = TrialSteps.blank(obs_size, action_size, device)
        return cls(**vars(step), terminated=step.valid, truncated=step.valid)

    @property
    def episode_end(self) -> Tensor:
        return self.terminated | self.truncated  # [T, M] bool


class TrialBuffer:
    """A ring of the `capacity` most recent trials of up to `num_steps` steps, on the sampling generator's device.

    action_size: the number of action dimensions; None for discrete actions. kind: the record of the stored fields.

    Raises:
        ValueError: when the ring needs more than `max_gigabytes`; raised before allocation.
    """

    def __init__(
        self,
        capacity: int,
        num_steps: int,
        obs_size: int,
        action_size: int | None,
        *,
        max_gigabytes: float,
        kind: type[TrialSteps] = TrialSteps,
        device: torch.device | str = "cpu",
    ) -> None:
        numbers = 2 * obs_size + (2 if action_size is None else action_size) + 2
        gigabytes = 4 * numbers * capacity * num_steps / 1e9
        if gigabytes > max_gigabytes:
            raise ValueError(
                f"a buffer of {capacity} trials x {num_steps} steps needs {gigabytes:.3g} GB; max_gigabytes is "
                f"{max_gigabytes:g}; lower buffer_trials or raise max_gigabytes"
            )
        self.capacity, self.num_steps, self.device = capacity, num_steps, torch.device(device)
        blank = kind.blank(obs_size, action_size, device)
        self._ring = blank.map(lambda value: value.new_zeros(num_steps, capacity, *value.shape))
        self._num_added = 0

    def __len__(self) -> int:
        """The number of stored trials."""
        return min(self._num_added, self.capacity)

    def add(self, trials: TrialSteps) -> None:
        """Store trials [T, B], T at most `num_steps`; of more than `capacity`, the last ones."""
        trials = trials.map(lambda value: value[:, -self.capacity :])
        rows = trials.valid.shape[1]
        places = (self._num_added + torch.arange(rows, device=self.device)) % self.capacity

        def write(ring: Tensor, values: Tensor) -> None:
            ring[:, places] = values

        pytree.tree_map(write, self._ring, lengthened(trials, self.num_steps))
        self._num_added += rows

    def sample(self, num_trials: int, generator: torch.Generator) -> TrialSteps:
        """Uniform samples, with replacement: [T, num_trials, ...].

        Raises:
            ValueError: when the buffer is empty.
        """
        places = self._drawn(num_trials, generator)
        return self._ring.map(lambda value: value[:, places])

    def sample_parts(self, num_trials: int, num_steps: int, generator: torch.Generator) -> tuple[TrialSteps, Tensor]:
        """Up to `num_steps` consecutive steps of each trial, and the step after them: [num_steps + 1, num_trials].

        Also returns the number of each part's first step in its trial, [num_trials]. Where a part begins is uniform,
        but all that would begin before their trial begin with it; so first steps are drawn as often as any.

        Raises:
            ValueError: when the buffer is empty.
        """
        places = self._drawn(num_trials, generator)
        length = self._ring.valid[:, places].sum(0)
        uniform = torch.rand((num_trials,), generator=generator, device=self.device, dtype=torch.float64)
        most = (length - num_steps).clamp(min=0)
        first = ((uniform * (most + num_steps)).long() - (num_steps - 1)).clamp(min=0)
        steps = first + torch.arange(num_steps + 1, device=self.device)[:, None]  # [num_steps + 1, M]
        within = steps < self.num_steps
        parts = self._ring.map(lambda value: value[steps.clamp(max=self.num_steps - 1), places])
        return replace(parts, valid=parts.valid & within), first

    def _drawn(self, num_trials: int, generator: torch.Generator) -> Tensor:
        """The places of trials drawn uniformly: [num_trials]."""
        if not len(self):
            raise ValueError("the buffer holds no trial to sample")
        return torch.randint(len(self), (num_trials,), generator=generator, device=self.device)

    def state_dict(self) -> dict[str, Any]:
        """The stored trials, as a list of tensors, and the number of all that were ever added."""
        stored = self._ring.map(lambda value: value[:, : len(self)].clone())
        return {"trials": list(vars(stored).values()), "num_added": self._num_added}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hold what was saved.

        Raises:
            KeyError: for what the state lacks.
            ValueError: when it does not fit the ring.
        """
        num_added, trials = state["num_added"], state["trials"]
        if type(num_added) is not int or num_added < 0:
            raise ValueError(f"buffer.num_added is {num_added!r}; must be a number of trials")
        rings = vars(self._ring)
        if not isinstance(trials, list) or len(trials) != len(rings):
            raise ValueError(f"buffer.trials must be a list of {len(rings)} tensors")
        count = min(num_added, self.capacity)
        for (name, ring), values in zip(rings.items(), trials, strict=True):
            shape = (self.num_steps, count, *ring.shape[2:])
            if not isinstance(values, Tensor) or values.shape != shape or values.dtype != ring.dtype:
                raise ValueError(f"buffer.{name} must be a tensor of {ring.dtype} with shape {list(shape)}")
        for ring, values in zip(rings.values(), trials, strict=True):
            ring.zero_()
            ring[:, :count] = values.to(self.device)
        self._num_added = num_added


class BufferedConfig(AgentConfig, Protocol):
    """The configuration of an agent that also learns from earlier trials."""

    @property
    def buffer_trials(self) -> int: ...  # capacity of the buffer, in trials
    @property
    def max_gigabytes(self) -> float: ...  # memory limit of the buffer


class BufferedTrials(NamedTuple):
    """An iteration's trials, and the buffer that already holds them."""

    trial: Trial
    buffer: TrialBuffer


class BufferedTrialSource(TrialSource):
    """A source of trials that also owns a buffer of recent ones; for agents whose whole trial is one block."""

    stored: ClassVar[type[TrialSteps]] = TrialSteps  # the record of the fields that the buffer stores

    def __init__(
        self,
        config: BufferedConfig,
        family: TaskFamily,
        train: TrainConfig,
        generators: Mapping[str, torch.Generator],
    ) -> None:
        super().__init__(config, family, train, generators)
        space = family.action_space
        self.buffer = TrialBuffer(
            config.buffer_trials,
            self.num_points * family.horizon,
            family.observation_space.shape[0],
            space.shape[0] if isinstance(space, spaces.Box) else None,
            max_gigabytes=config.max_gigabytes,
            kind=self.stored,
            device=generators["initialisation"].device,
        )

    def draw(self, learner: Agent[Any, Any]) -> Draw[Any]:
        """A trial in fresh training tasks, and the buffer with it.

        Raises:
            FloatingPointError: when an observation or a reward is not finite; names the task and the step.
        """
        drawn = super().draw(learner)
        (trajectory,) = drawn.experience
        share = current() or Share(self.num_tasks)
        self.buffer.add(share.gathered(lengthened(self.stored.of(trajectory), self.buffer.num_steps), dim=1))
        return Draw(BufferedTrials(drawn.experience, self.buffer), drawn.amount, drawn.metrics)

    def state_dict(self, *, to_train: bool = True) -> dict[str, Any]:
        state = super().state_dict(to_train=to_train)
        return {**state, "buffer": self.buffer.state_dict()} if to_train else state

    def load_state_dict(self, state: Mapping[str, Any], *, to_train: bool = True) -> None:
        super().load_state_dict(state, to_train=to_train)
        if to_train:
            self.buffer.load_state_dict(state["buffer"])


@runtime_checkable
class Explores(Protocol):
    """An optional method of an `Agent` that explores in meta-training only, by a state of its own."""

    def collecting(self, num_tasks: int, copies: int = 1) -> Any:
        """`prior`, but with sampled actions."""
        ...


class OffPolicyTrialSource(BufferedTrialSource):
    """A source of trials in which the agent explores, with a buffer that also knows how episodes ended."""

    stored = EndedTrialSteps

    def _first_state(self, learner: Agent[Any, Any], num_tasks: int) -> Any:
        assert isinstance(learner, Explores)
        return learner.collecting(num_tasks, self.copies)
