"""Starting meta-training from what another run has learned, e.g. on another family or other ranges of it.

All tensors of the learner are taken: weights, learned step sizes, temperatures and the moments that standardise its
inputs, since the weights are of no use without them. Optimisers, schedules, counters, random streams and a replay
start afresh: they belong to the loss and the data of the other training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments.experiment.definition import tensor_misfit
from metarl.errors import UserError
from metarl.optim import is_optimizer_state
from metarl.records import Digest
from metarl.run.directory import Run
from metarl.trainer import Trainer


@dataclass(frozen=True)
class Start:
    """What a learner starts from."""

    learned: dict[str, Tensor]  # all tensors of the other learner, by dotted name
    origin: dict[str, Any]  # where they come from, for meta.json

    @classmethod
    def of(cls, run: Run, checkpoint: str = "latest") -> Start:
        """What a checkpoint of a run has learned. No code that the run names or brings along is run.

        Raises:
            UserError: when there is no such checkpoint, it cannot be read, or a number in it is not one.
        """
        checkpoint = run.checkpoint(checkpoint)
        state = run.load(checkpoint)
        learned = dict(_tensors(state.get("agent"), "agent"))
        spoilt = next((name for name, value in learned.items() if bool(value.isnan().any())), None)
        if spoilt is not None:
            raise UserError(f"cannot start from {run.path}: {spoilt} is not a number")
        digest = Digest()
        digest.add(learned)
        config = run.config()
        origin = {
            "run": str(run.path.resolve()),
            "experiment": config.get("experiment"),
            "seed": config.get("seed"),
            "checkpoint": checkpoint,
            "iteration": state.get("iteration"),
            "weights": str(digest),
        }
        return cls(learned, origin)

    def give(self, trainer: Trainer) -> None:
        """Replace all tensors of a fresh trainer's learner.

        Raises:
            UserError: when one of them differs in name or shape; names the first.
        """
        fresh = trainer.agent.state_dict()
        own = dict(_tensors(fresh, "agent"))
        where = f"cannot start from {self.origin['run']}"
        for name, value in own.items():
            if name not in self.learned:
                raise UserError(f"{where}: it has no {name}, which has shape {list(value.shape)} here")
            misfit = tensor_misfit(value, self.learned[name], name)
            if misfit is not None:
                raise UserError(f"{where}: {misfit}")
        more = [name for name in self.learned if name not in own]
        if more:
            raise UserError(f"{where}: {more[0]} has shape {list(self.learned[more[0]].shape)} and no place here")
        trainer.agent.load_state_dict(self._given(fresh, "agent"))

    def _given(self, fresh: Any, where: str) -> Any:
        """A learner's fresh state with the learned tensors in the place of its own."""
        if isinstance(fresh, Tensor):
            return self.learned[where].to(fresh.device)
        if isinstance(fresh, Mapping) and not is_optimizer_state(fresh):
            return {name: self._given(value, f"{where}.{name}") for name, value in fresh.items()}
        if isinstance(fresh, (list, tuple)):
            return [self._given(value, f"{where}.{index}") for index, value in enumerate(fresh)]
        return fresh


def _tensors(state: Any, where: str) -> list[tuple[str, torch.Tensor]]:
    """All tensors in a learner's state but those of optimisers, by dotted name."""
    if isinstance(state, Tensor):
        return [(where, state)]
    if isinstance(state, Mapping) and not is_optimizer_state(state):
        return [pair for name, value in state.items() for pair in _tensors(value, f"{where}.{name}")]
    if isinstance(state, (list, tuple)):
        return [pair for index, value in enumerate(state) for pair in _tensors(value, f"{where}.{index}")]
    return []
