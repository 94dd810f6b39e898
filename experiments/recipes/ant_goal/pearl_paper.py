"""PEARL on ant_goal, settings as published, for a GPU.

Rakelly et al. (2019). Its result has not been measured here.
"""

from agents.pearl import PEARLConfig
from envs.locomotion.ant import AntGoal
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=AntGoal(),
    agent=PEARLConfig(
        num_train_tasks=150, num_gradient_steps=4000, meta_batch=10, context=256, capacity=20_000, kl_weight=10.0
    ),
    train=TrainConfig(num_iterations=100, num_tasks=5, num_points=3, eval_every=5, eval_tasks=30, checkpoint_every=5),
)
