"""RL2 on Meta-World's ML1-reach with the benchmark's own settings: trials of ten episodes, two million steps.

McLean et al. (2025), as in the authors' code (rainx0r/metaworld-algorithms): ten tasks of ten episodes per update, a
GRU of 256 units after two layers of 256, segments of 250 steps, ten epochs. Deviations: 1. a learned critic instead of
a linear baseline. 2. standardised advantages. 3. a learned deviation of actions instead of one by the net. 4. segments
without overlap, from the memory as it is now. 5. observations and rewards are normalised by running moments; their
memory reads rewards divided by ten, and never that an episode ends.
"""

from agents.rl2 import RL2Config
from envs.external.metaworld.family import Metaworld
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Metaworld("ML1-reach-v3"),
    agent=RL2Config(
        hidden_size=256,
        encoder_sizes=(256, 256),
        segment=250,
        truncate=True,
        learning_rate=5e-4,
        final_learning_rate=5e-4,
        num_epochs=10,
        num_minibatches=10,
        entropy_coefficient=5e-3,
        max_grad_norm=1.0,
        target_kl=None,
    ),
    train=TrainConfig(num_iterations=40, num_tasks=10, eval_every=10, eval_tasks=50, checkpoint_every=5),
)
