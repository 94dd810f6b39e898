"""PEARL on walker2d_rand_params, for two cores.

The settings of half_cheetah_vel/pearl, with next observations in the context; `pearl_paper` has the published ones.
After 138,000 steps: 171, 176 and 233 in three episodes (experiments/LOG.md).
"""

from dataclasses import replace

from agents.pearl import PEARL_TWO_CORES
from experiments.recipes.walker2d_rand_params import pearl_paper
from metarl.trainer import TrainConfig

experiment = replace(
    pearl_paper.experiment,
    agent=replace(
        PEARL_TWO_CORES,
        num_train_tasks=40,
        next_obs_in_context=True,
        initial_episodes=4,
        num_gradient_steps=1000,
        meta_batch=10,
        kl_weight=0.04,
    ),
    train=TrainConfig(
        num_iterations=100, num_tasks=10, copies=2, num_points=3, eval_every=5, eval_tasks=30, checkpoint_every=5
    ),
)
