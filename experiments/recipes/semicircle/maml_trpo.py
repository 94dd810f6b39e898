"""MAML-TRPO on the sparse semicircle, for as many environment steps as semicircle/pearl."""

from agents.maml import MAMLTRPOConfig
from envs.torch_families.navigation import Semicircle
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Semicircle(),
    agent=MAMLTRPOConfig(num_rollouts=5, inner_lr=0.2, action_scale=1.0),
    train=TrainConfig(num_iterations=33, num_tasks=40, num_points=2, eval_every=10),
)
