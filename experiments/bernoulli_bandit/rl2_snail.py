"""RL2 with a SNAIL as its memory, on five Bernoulli arms and ten pulls: convolutions over time, and attention.

The budget of the recipe rl2; the learning rate was chosen among three by returns of training.
"""

from dataclasses import replace

from experiments.bernoulli_bandit import rl2
from metarl.adaptation.snail import SnailConfig

experiment = replace(
    rl2.experiment,
    agent=replace(
        rl2.experiment.agent,
        memory="snail",
        snail=SnailConfig(filters=(16,), key_sizes=(16,), value_sizes=(16,), length=11),
        learning_rate=4e-3,
        final_learning_rate=4e-4,
    ),
)
