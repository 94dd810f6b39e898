"""Experiments: their definition, finding them by name or path, and writing them to JSON and reading them back."""

from typing import TYPE_CHECKING

from metarl._lazy import lazily

if TYPE_CHECKING:
    from experiments.experiment.definition import Expected, Experiment, load

__all__ = ["Expected", "Experiment", "load"]

__getattr__, __dir__ = lazily(__name__, {name: f"experiments.experiment.definition:{name}" for name in __all__})
