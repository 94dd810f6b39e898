"""PEARL infers from how its walker moves what its body is like.

The settings of half_cheetah_vel/pearl, for two cores, with next observations in the context; `pearl_paper` has the
published ones. After 138,000 steps: 171, 176 and 233 in three episodes (experiments/LOG.md).
"""

from dataclasses import replace

from experiments.walker2d_rand_params import pearl_paper
from metarl.trainer import TrainConfig

experiment = replace(
    pearl_paper.experiment,
    agent=replace(
        pearl_paper.experiment.agent,
        hidden_sizes=(128, 128),
        encoder_sizes=(100, 100),
        initial_episodes=4,
        extra_episodes=4,
        num_gradient_steps=1000,
        meta_batch=10,
        batch=64,
        context=64,
        learning_rate=1e-3,
        target_share=0.01,
        reward_scale=1.0,
        temperature=0.2,
        kl_weight=0.04,
    ),
    train=TrainConfig(
        num_iterations=100, num_tasks=10, copies=2, num_episodes=3, eval_every=5, eval_tasks=30, checkpoint_every=5
    ),
)
