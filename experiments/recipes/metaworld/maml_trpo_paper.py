"""MAML-TRPO on Meta-World's ML1-reach with the benchmark's own settings: ten tasks of ten episodes, two million steps.

McLean et al. (2025), as in the authors' code (rainx0r/metaworld-algorithms): one inner step of .1, a trust region of
.01 nats, two layers of 512, a linear baseline. Deviations: 1. advantages are divided by their deviation; their code
divides by the variance, which changes the inner step's length. 2. Fisher-vector products are exact. 3. weights are
initialised orthogonally.
"""

from agents.maml import MAMLTRPOConfig
from envs.external.metaworld.family import Metaworld
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Metaworld("ML1-reach-v3"),
    agent=MAMLTRPOConfig(hidden_sizes=(512, 512), num_rollouts=10, action_scale=1.0, curvature_stride=1),
    train=TrainConfig(num_iterations=20, num_tasks=10, num_points=2, eval_every=5, eval_tasks=50, checkpoint_every=5),
)
