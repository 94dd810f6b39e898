"""PEARL on ant_goal, for two cores.

The settings of half_cheetah_vel/pearl, and a third of the published tasks; `pearl_paper` has the published ones. After
640,000 steps it infers training goals, but not yet test goals (experiments/LOG.md).
"""

from dataclasses import replace

from agents.pearl import PEARL_TWO_CORES
from experiments.recipes.ant_goal import pearl_paper
from metarl.trainer import TrainConfig

experiment = replace(
    pearl_paper.experiment,
    agent=replace(
        PEARL_TWO_CORES,
        capacity=20_000,
        initial_episodes=4,
        num_gradient_steps=1000,
        meta_batch=10,
        kl_weight=0.4,
        num_train_tasks=50,
    ),
    train=TrainConfig(
        num_iterations=100, num_tasks=10, copies=2, num_points=3, eval_every=5, eval_tasks=30, checkpoint_every=5
    ),
)
