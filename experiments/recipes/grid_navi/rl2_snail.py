"""RL2 with SNAIL as its memory, on GridNavi.

The budget of grid_navi/rl2.
"""

from dataclasses import replace

from experiments.recipes.grid_navi import rl2
from metarl.adaptation.snail import SnailConfig

experiment = replace(
    rl2.experiment,
    agent=replace(
        rl2.experiment.agent,
        hidden_size=64,
        memory=SnailConfig(filters=(16,), key_sizes=(32,), value_sizes=(32,), length=61),
        learning_rate=2e-3,
        final_learning_rate=2e-4,
    ),
)
