"""PEARL on ant_dir (forward or backward), settings as published, for a GPU.

Rakelly et al. (2019). Its result has not been measured here.
"""

from agents.pearl import PEARLConfig
from envs.locomotion.ant import AntDir
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=AntDir(),
    agent=PEARLConfig(num_train_tasks=2, num_gradient_steps=4000, meta_batch=4, context=256, kl_weight=0.4),
    train=TrainConfig(num_iterations=100, num_tasks=2, num_points=3, eval_every=5, eval_tasks=30, checkpoint_every=5),
)
