"""RL2 with a transformer as its memory, on a five-armed Bernoulli bandit, ten pulls.

The budget of bernoulli_bandit/rl2. Of the learning rates .0005 and .001, the second one earned slightly more after 120
iterations, in runs with twice the width from before query and key weights started equal.
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
