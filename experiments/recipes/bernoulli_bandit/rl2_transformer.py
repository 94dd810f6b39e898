"""RL2 with a transformer as its memory, on five Bernoulli arms and ten pulls.

The budget of the recipe rl2. Of the learning rates .0005 and .001 the second earned a little more after 120 iterations
of training, at twice the width and at a time when queries and keys did not yet begin alike.
"""

from dataclasses import replace

from experiments.recipes.bernoulli_bandit import rl2
from metarl.adaptation.transformer import TransformerConfig

experiment = replace(
    rl2.experiment,
    agent=replace(
        rl2.experiment.agent,
        hidden_size=32,
        memory=TransformerConfig(num_layers=1, num_heads=2),
        learning_rate=1e-3,
        final_learning_rate=1e-4,
    ),
)
