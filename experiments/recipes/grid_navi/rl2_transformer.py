"""RL2 with a transformer as its memory, on GridNavi.

The budget of grid_navi/rl2.
"""

from dataclasses import replace

from experiments.recipes.grid_navi import rl2
from metarl.adaptation.transformer import TransformerConfig

experiment = replace(
    rl2.experiment,
    agent=replace(
        rl2.experiment.agent,
        hidden_size=64,
        memory=TransformerConfig(num_layers=1),
        learning_rate=1e-3,
        final_learning_rate=1e-4,
    ),
)
