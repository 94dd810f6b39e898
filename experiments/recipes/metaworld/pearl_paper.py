"""PEARL on Meta-World's ML1-reach with the settings that the benchmark's paper was measured with, for a GPU.

Yu et al. (2019), as in the code that they used (rlworkgroup/garage): 50 goals, a latent of 7, 4000 gradient steps of 16
tasks per iteration, rewards times ten. Deviations: 1. whole episodes: two of 500 steps from the prior where theirs are
750 steps, and two from the posterior. 2. capacity: as many transitions per task as an hour of the run collects.
"""

from agents.pearl import PEARLConfig
from envs.external.metaworld.family import Metaworld
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Metaworld("ML1-reach-v3"),
    agent=PEARLConfig(
        latent_size=7,
        num_train_tasks=50,
        initial_episodes=8,
        prior_episodes=2,
        extra_episodes=2,
        num_gradient_steps=4000,
        context=64,
        reward_scale=10.0,
    ),
    train=TrainConfig(
        num_iterations=1000, num_tasks=15, num_points=3, eval_every=20, eval_tasks=50, checkpoint_every=5
    ),
)
