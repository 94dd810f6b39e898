"""MAML-TRPO on point navigation, settings as published."""

from agents.maml import MAMLTRPOConfig
from envs.torch_families.navigation import PointNavigation
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=PointNavigation(),
    agent=MAMLTRPOConfig(
        hidden_sizes=(100, 100), activation="relu", inner_lr=0.5, later_inner_lr=0.25, curvature_stride=1
    ),
    train=TrainConfig(num_iterations=100, num_tasks=20, eval_every=20, eval_tasks=40, checkpoint_every=20),
    expected=Expected(at_least=-4.5, source="Finn et al. 2017 reach -3.2", point=3),
)
