"""Reptile tells five characters apart after fifty steps on one example of each, all queries at once.

Nichol, Achiam, Schulman (2018), with transduction: the five queries of a task, one of each class, are normalised
together at meta-test. Meta-training and everything else are those of omniglot/reptile.
"""

from dataclasses import replace

from experiments import Expected
from experiments.recipes.omniglot import reptile

experiment = replace(
    reptile.experiment,
    agent=replace(reptile.experiment.agent, transduction=True),
    expected=Expected(at_least=0.947, point=50, source="within three points of 0.977 in Nichol et al. 2018"),
)
