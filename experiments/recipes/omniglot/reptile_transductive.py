"""Reptile on Omniglot, 5-way 1-shot, with transduction.

Nichol, Achiam, Schulman (2018), with transduction: the five queries of a task, one per class, are normalised together
at meta-test. Meta-training and all other settings are those of omniglot/reptile.
"""

from dataclasses import replace

from experiments import Expected
from experiments.recipes.omniglot import reptile

experiment = replace(
    reptile.experiment,
    agent=replace(reptile.experiment.agent, transduction=True),
    expected=Expected(at_least=0.947, point=50, source="within three points of 0.977 in Nichol et al. 2018"),
)
