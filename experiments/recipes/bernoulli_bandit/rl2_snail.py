"""RL2 with SNAIL as its memory, on a five-armed Bernoulli bandit, ten pulls.

The budget of bernoulli_bandit/rl2. Of the learning rates .001, .002 and .004, the last one earned the most after 120
iterations, in runs from before query and key weights started equal.
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
