"""MAML-TRPO on half_cheetah_vel, settings as published."""

from agents.maml import MAMLTRPOConfig
from envs.locomotion.half_cheetah import HalfCheetahVel
from envs.samplers import Range
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahVel(velocity=Range(0.0, 2.0)),
    agent=MAMLTRPOConfig(hidden_sizes=(100, 100), activation="relu", later_inner_lr=0.05, curvature_stride=1),
    train=TrainConfig(num_iterations=800, num_tasks=40, eval_every=50, eval_tasks=40, checkpoint_every=10),
    expected=Expected(at_least=-80, source="Finn et al. 2017 reach -79 on rllab's cheetah, up to 2 m/s", point=1),
)
