"""Experiments: the parts of a recipe. `from experiments import Experiment, Expected, TrainConfig`."""

from typing import TYPE_CHECKING

from metarl._lazy import lazily

if TYPE_CHECKING:
    from experiments.experiment.definition import Expected, Experiment, load
    from metarl.trainer import TrainConfig

__all__ = [
    "Expected",
    "Experiment",
    "TrainConfig",
    "load",
]

_OFFERED = {
    "Expected": "experiments.experiment.definition:Expected",
    "Experiment": "experiments.experiment.definition:Experiment",
    "TrainConfig": "metarl.trainer:TrainConfig",
    "load": "experiments.experiment.definition:load",
}

__getattr__, __dir__ = lazily(__name__, _OFFERED)
