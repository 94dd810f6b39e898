"""Sources of the outer loop's experience: the common interface of trials, replay and few-shot episodes.

A configuration makes its source: `config.make_source(family, train, generators)`. The trainer uses only this interface,
so an agent in another package can collect experience in its own way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch

from metarl.checks import at_least, positive
from metarl.evaluation import Evaluation, Measure
from metarl.protocols import Split
from metarl.task_samplers.catalog import SAMPLERS, AnySampler
from metarl.task_samplers.sampler import DrawTasks, TaskSampler, UniformConfig

L = TypeVar("L")
E = TypeVar("E")


@dataclass(frozen=True)
class Draw(Generic[E]):
    """One iteration's experience."""

    experience: E  # argument of the learner's `update`
    amount: int  # newly collected amount, in the source's unit
    metrics: dict[str, float]  # metrics to log, by tag


@dataclass(frozen=True)
class TrainConfig:
    """Length of meta-training and amount of data per iteration."""

    num_iterations: int  # number of meta-updates
    num_tasks: int  # N, fresh tasks per iteration
    copies: int = 1  # E, rows per task
    num_points: int | None = None  # points of the adaptation curve; None: the family's own number, or 10 steps
    eval_every: int = 50  # iterations between evaluations on held-out tasks; 0: only at the end
    eval_tasks: int = 100  # number of held-out tasks per evaluation
    checkpoint_every: int = 25  # number of iterations between checkpoints
    checkpoint_minutes: float = 5.0  # minutes after which a checkpoint is due though fewer iterations have passed
    keep_every: int = 0  # number of iterations between further checkpoints that are never replaced; 0: none are kept
    graphs: bool = False  # whether a step of a trial's collection is one CUDA graph; on a GPU, for families of torch
    sampler: AnySampler = field(  # choice of training tasks; evaluations keep the family's own distribution
        default_factory=UniformConfig, metadata={"variants": SAMPLERS}
    )

    def __post_init__(self) -> None:
        at_least(self, 1, "num_iterations", "num_tasks", "copies", "num_points", "eval_tasks", "checkpoint_every")
        at_least(self, 0, "eval_every", "keep_every")
        positive(self, "checkpoint_minutes")
        if not isinstance(self.sampler, AnySampler):
            raise ValueError(f"sampler is {self.sampler!r}; must be a configuration such as {SAMPLERS['roml']!r}")


class Source(Protocol[L, E]):
    """Draws experience for a learner from training tasks, and evaluates it on held-out tasks.

    A learner has update(experience, generator), state_dict and load_state_dict, and whatever its source requires. A
    source with an attribute `validation_split` is evaluated on that split during training, others on test tasks.
    """

    measure: Measure  # measure of its adaptation curves
    unit: str  # unit of amounts, e.g. "environment steps"
    unit_rate: str  # unit of throughput, e.g. "env-steps/s"
    score_tag: str  # tag of the logged number by which the best checkpoint is chosen, among iterations that log it
    num_points: int  # points of an adaptation curve

    @property
    def num_diverged(self) -> int: ...  # simulations reset so far because they diverged

    def make_learner(self, num_iterations: int) -> L:
        """A fresh learner of the configuration that made the source; `num_iterations` is the length of its schedules.

        Raises:
            ValueError: when the configuration does not fit the family.
        """
        ...

    def draw(self, learner: L) -> Draw[E]:
        """Experience in training tasks.

        Raises:
            FloatingPointError: when a value is not finite.
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
        """The adaptation curve on fresh tasks of a split; all randomness comes from the generator.

        family: the family to evaluate on; None: the source's own. deterministic: act by the policy's mode.
        """
        ...

    def state_dict(self, *, to_train: bool = True) -> dict[str, Any]:
        """The source's state, apart from its generators.

        to_train: include everything needed to resume training, e.g. a replay; otherwise only what an evaluation needs.
        """
        ...

    def load_state_dict(self, state: Mapping[str, Any], *, to_train: bool = True) -> None:
        """Restore a saved state; to_train: as in `state_dict`; a state to train from must have been saved with it.

        Raises:
            KeyError: names what the state lacks.
        """
        ...


@runtime_checkable
class NamesSource(Protocol):
    """The configuration of any learner: a frozen dataclass that makes the source of its experience."""

    def make_source(
        self, family: Any, train: TrainConfig, generators: Mapping[str, torch.Generator]
    ) -> Source[Any, Any]:
        """The source for this configuration's learner on a family.

        generators: named "initialisation", "task", "env", "policy" and "update", on the training device.

        Raises:
            ValueError: when the family is of the wrong kind, or does not fit the settings.
        """
        ...


def sampler_of(train: TrainConfig, draw: DrawTasks, device: torch.device, *, chooses: str) -> TaskSampler:
    """The sampler of training tasks that the settings ask for.

    draw: tasks of the family's own distribution. chooses: what tells these tasks apart, "parameters" or "classes".

    Raises:
        ValueError: when the sampler cannot choose among such tasks.
    """
    config = train.sampler
    if config.chooses not in ("anything", chooses):
        raise ValueError(f"sampler is {config!r}, which chooses by {config.chooses}; tasks here have {chooses}")
    try:
        return config.make(draw, device)
    except ValueError as error:
        raise ValueError(f"sampler is {config!r}: {error}") from error


def check_kinds(config: object, family: object, *, acts: bool, fits: bool) -> None:
    """Check that a learner and a family are of the same kind.

    acts: whether the configuration is an RL agent's. fits: whether the family is of the kind that the learner needs.

    Raises:
        ValueError: names both kinds when they differ.
    """
    if fits:
        return
    learner, other = type(config).__name__, type(family).__name__
    if acts and hasattr(family, "problem"):
        raise ValueError(f"{learner} is an RL agent; {other} needs a few-shot learner (see `metarl list learners`)")
    if not acts and hasattr(family, "sample"):
        raise ValueError(f"{learner} is a few-shot learner; {other} needs an RL agent (see `metarl list agents`)")
    raise ValueError(f"family is {other}; must be a task family (see `metarl list families`)")
