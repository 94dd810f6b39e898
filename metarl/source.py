"""Where the outer loop's experience comes from: the contract of trials, of replay and of few-shot episodes.

A configuration names its source: `config.make_source(family, train, generators)`. The trainer knows this contract
alone, so an agent in a package of its own can collect in its own way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch

from metarl.checks import at_least
from metarl.evaluation import Evaluation, Measure
from metarl.protocols import Split

L = TypeVar("L")
E = TypeVar("E")


@dataclass(frozen=True)
class Draw(Generic[E]):
    """One iteration's experience."""

    experience: E  # what the learner's `update` takes
    amount: int  # how much was newly collected, in the source's units
    metrics: dict[str, float]  # what is worth logging of it, by tags


@dataclass(frozen=True)
class TrainConfig:
    """How long to meta-train and on how much."""

    num_iterations: int  # number of meta-updates
    num_tasks: int  # N, fresh tasks per iteration
    copies: int = 1  # E, rows per task
    num_points: int | None = None  # points of the adaptation curve; None: the family's own number, or 10 steps
    eval_every: int = 50  # iterations between evaluations on held-out tasks; 0: only at the end
    eval_tasks: int = 100  # number of held-out tasks per evaluation
    checkpoint_every: int = 25  # iterations between checkpoints

    def __post_init__(self) -> None:
        at_least(self, 1, "num_iterations", "num_tasks", "copies", "num_points", "eval_tasks", "checkpoint_every")
        at_least(self, 0, "eval_every")


class Source(Protocol[L, E]):
    """Draws experience for a learner from fresh training tasks, and evaluates it on held-out ones.

    A learner has update(experience, generator), state_dict and load_state_dict, and what its own source asks of it.
    """

    measure: Measure  # of its adaptation curves
    unit: str  # what amounts are counted in, such as "environment steps"
    unit_rate: str  # its throughput unit, such as "env-steps/s"
    score_tag: str  # the logged number, of the measure's kind, by which the best checkpoint is chosen
    num_points: int  # of an adaptation curve

    @property
    def num_diverged(self) -> int: ...  # simulations so far that were reset because they diverged

    def make_learner(self, num_iterations: int) -> L:
        """A fresh learner of the configuration that made the source; `num_iterations` ends its schedules.

        Raises:
            ValueError: when the configuration does not fit the family.
        """
        ...

    def draw(self, learner: L) -> Draw[E]:
        """Experience in training tasks.

        Raises:
            FloatingPointError: when it is not finite.
        """
        ...

    def evaluate(
        self,
        learner: L,
        *,
        agent_name: str,
        split: Split,
        num_tasks: int,
        num_points: int | None,
        generator: torch.Generator,
        family: Any = None,
        deterministic: bool = False,
    ) -> Evaluation:
        """The adaptation curve on fresh tasks of a split; everything random comes from the generator.

        family: another one than that of training; None: the source's own. deterministic: act by the policy's mode.
        """
        ...

    def state_dict(self, *, to_train: bool = True) -> dict[str, Any]:
        """What the source needs beside its generators.

        to_train: all that a resumed training needs, a replay among it; else what an evaluation needs.
        """
        ...

    def load_state_dict(self, state: Mapping[str, Any], *, to_train: bool = True) -> None:
        """Go on from a saved state; to_train: as in `state_dict`, with which it must have been saved then.

        Raises:
            KeyError: for what the state lacks.
        """
        ...


@runtime_checkable
class NamesSource(Protocol):
    """The configuration of a learner of any kind: a frozen dataclass that names where its experience comes from."""

    def make_source(
        self, family: Any, train: TrainConfig, generators: Mapping[str, torch.Generator]
    ) -> Source[Any, Any]:
        """The source for this configuration's learner on a family.

        generators: by the names "initialisation", "task", "env", "policy" and "update", on the device to train on.

        Raises:
            ValueError: when the family is of another kind, or does not fit the settings.
        """
        ...


def check_kinds(config: object, family: object, *, acts: bool, fits: bool) -> None:
    """Refuse a learner on a family of the other kind.

    acts: whether the configuration is an RL agent's. fits: whether the family is of the kind that such a learner needs.

    Raises:
        ValueError: naming both kinds.
    """
    if fits:
        return
    learner, other = type(config).__name__, type(family).__name__
    if acts and hasattr(family, "problem"):
        raise ValueError(f"{learner} is an RL agent; {other} needs a few-shot learner (see `metarl list learners`)")
    if not acts and hasattr(family, "sample"):
        raise ValueError(f"{learner} is a few-shot learner; {other} needs an RL agent (see `metarl list agents`)")
    raise ValueError(f"family is {other}; must be a task family (see `metarl list families`)")
