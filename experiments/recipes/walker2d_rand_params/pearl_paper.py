"""PEARL on walker2d_rand_params, settings as published, for a GPU.

Rakelly et al. (2019). The context includes next observations. Its result has not been measured here.
"""

from agents.pearl import PEARLConfig
from envs.locomotion.walkers import Walker2dRandParams
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Walker2dRandParams(),
    agent=PEARLConfig(
        num_train_tasks=40, next_obs_in_context=True, num_gradient_steps=4000, meta_batch=10, kl_weight=1.0
    ),
    train=TrainConfig(num_iterations=100, num_tasks=5, num_points=3, eval_every=5, eval_tasks=30, checkpoint_every=5),
)
