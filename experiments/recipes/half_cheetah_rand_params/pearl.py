"""PEARL on half_cheetah_rand_params, with unknown masses, damping and friction, for two cores.

The settings of half_cheetah_vel/pearl. The curve has two episodes of exploration and one after them.
"""

from dataclasses import replace

from agents.pearl import PEARL_TWO_CORES
from envs.locomotion.half_cheetah import HalfCheetahRandParams
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahRandParams(),
    agent=replace(
        PEARL_TWO_CORES,
        num_train_tasks=50,
        initial_episodes=4,
        prior_episodes=2,
        capacity=20_000,
        num_gradient_steps=700,
        meta_batch=10,
        kl_weight=0.1,
    ),
    train=TrainConfig(num_iterations=39, num_tasks=10, copies=2, num_points=3, eval_every=0, checkpoint_every=5),
)
