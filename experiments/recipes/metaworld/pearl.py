"""PEARL on Meta-World's ML1-reach for two cores: 50 training goals, half a million steps.

The nets and steps of half_cheetah_vel/pearl, with rewards up to ten per step. The curve has two episodes of exploration
and one after them. For another environment: --family.benchmark ML1-push-v3.
"""

from dataclasses import replace

from agents.pearl import PEARL_TWO_CORES
from envs.external.metaworld.family import Metaworld
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Metaworld("ML1-reach-v3"),
    agent=replace(
        PEARL_TWO_CORES,
        num_train_tasks=50,
        initial_episodes=2,
        prior_episodes=1,
        extra_episodes=1,
        capacity=20_000,
        num_gradient_steps=700,
        meta_batch=10,
        kl_weight=0.1,
        normalise_obs=True,
    ),
    train=TrainConfig(
        num_iterations=45, num_tasks=10, copies=1, num_points=3, eval_every=5, eval_tasks=50, checkpoint_every=5
    ),
)
