# The types of what metarl/__init__.py offers lazily: the core itself imports nothing from experiments.
from experiments.experiment.python import evaluate as evaluate
from experiments.experiment.python import list_experiments as list_experiments
from experiments.experiment.python import load as load
from experiments.experiment.python import make_family as make_family
from experiments.experiment.python import train as train
