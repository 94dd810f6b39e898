"""A learner that leaves PyTorch and still adapts: what it does at each step, with its state passed in and out.

An agent describes its step in `deployed`, and `experiments.exporting` makes files of it. The step acts by the policy's
mode. Its shapes never change: where a memory grows in training, it has a fixed number of places here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metarl.records import Record, Step

S = TypeVar("S")


@dataclass(frozen=True)
class StepInputs(Record):
    """What a deployed agent reads at each step besides its state; at the first step in a task, `obs` alone counts."""

    obs: Tensor  # [B, O], the observation to act on
    action: Tensor  # [B] int64 or [B, A] float32, the previous action as the environment carried it out
    reward: Tensor  # [B], the previous action's reward
    episode_end: Tensor  # [B] bool, whether the previous action ended an episode
    new_task: Tensor  # [B] bool, whether this is the first step in a task
    next_obs: Tensor  # [B, O], what the previous action led to; unlike `obs` only where an episode ended
    noise: Tensor  # [B, Z], standard normal numbers to explore by: a posterior sample's, or an action's; zeros for none

    @property
    def step(self) -> Step:
        """The previous step's results as agents read them in training; the time limit ends all episodes."""
        return Step(self.obs, self.next_obs, self.reward, torch.zeros_like(self.episode_end), self.episode_end)


@dataclass(frozen=True)
class DeployedAgent:
    """An agent's step as a function of inputs and state."""

    step: Callable[[Any, StepInputs], tuple[Tensor, Any]]  # state and inputs to the action and the next state
    initial: Any  # state of one row at the start of a task: a record or a dict of tensors [1, ...]
    reads: tuple[str, ...]  # fields of `StepInputs` that the step reads besides `obs` and `new_task`
    noise_size: int = 0  # Z, the number of standard normal numbers per step
    max_items: int | None = None  # steps of a trial after which the memory forgets the oldest; None: unlimited


@runtime_checkable
class Deploys(Protocol):
    """An optional method of an `Agent` that can be exported."""

    def deployed(self, num_steps: int) -> DeployedAgent:
        """The agent's step, for trials of up to `num_steps` steps."""
        ...


@dataclass(frozen=True)
class DeployedAdaptation:
    """What an agent does after a block of episodes, as a function of its state and of the block's steps."""

    adapt: Callable[..., Any]  # the state of one row and the inputs, by name, to the next state
    inputs: dict[str, Tensor]  # an example of each input besides the state, by name
    meanings: dict[str, str]  # what each of these inputs is, by name
    inputs_of: Callable[[Any, int], dict[str, Tensor]]  # a trajectory of N tasks and N to the inputs [N, ...], by name


@runtime_checkable
class DeploysAdaptation(Protocol):
    """An optional method of an `Agent` that adapts after blocks of episodes."""

    def deployed_adaptation(self, num_steps: int) -> DeployedAdaptation:
        """The adaptation to a block of up to `num_steps` steps of one task."""
        ...


@dataclass(frozen=True)
class DeployedPart:
    """A part of an agent's step that can run apart from the rest, at its own rate or in another process."""

    name: str
    function: Callable[[Any, dict[str, Tensor]], tuple[Tensor | None, Any]]  # state and inputs to action and next state
    state: Any  # example of what it reads of the step's state, of one row [1, ...]; random, as a trial might leave it
    reads: dict[str, str]  # the fields of `StepInputs` that it reads, with what each of them means here
    noise_size: int = 0  # Z


@runtime_checkable
class DeploysParts(Protocol):
    """An optional method of an `Agent` whose step has such parts."""

    def deployed_parts(self) -> tuple[DeployedPart, ...]:
        """The parts of the agent's step; a part returns None for the action or the state that it does not decide."""
        ...


def where(rows: Tensor, chosen: S, other: S) -> S:
    """`chosen` in the rows [B] where `rows` is true, and `other` in the rest: states [B, ...] or [1, ...]."""

    def each(one: Tensor, two: Tensor) -> Tensor:
        return torch.where(rows.reshape(-1, *[1] * (two.ndim - 1)), one, two)

    return pytree.tree_map(each, chosen, other)
