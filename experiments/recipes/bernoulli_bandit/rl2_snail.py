"""RL2 with a SNAIL as its memory, on five Bernoulli arms and ten pulls: convolutions over time, and attention.

The budget of the recipe rl2. Of the learning rates .001, .002 and .004 the last earned most after 120 iterations of
training, at a time when queries and keys did not yet begin alike.
"""

from dataclasses import replace

from experiments.recipes.bernoulli_bandit import rl2
from metarl.adaptation.snail import SnailConfig

experiment = replace(
    rl2.experiment,
    agent=replace(
        rl2.experiment.agent,
        memory=SnailConfig(filters=(16,), key_sizes=(16,), value_sizes=(16,), length=11),
        learning_rate=4e-3,
        final_learning_rate=4e-4,
    ),
)
