"""MAML-TRPO on half_cheetah_vel, with twenty episodes before adaptation.

The settings of half_cheetah_dir/maml_trpo, which explains how they differ from the published ones of `maml_trpo_paper`.
Velocities go up to 3 m/s here. Seed 0 had -149 after 60 iterations, and was still learning.
"""

from agents.maml import MAMLTRPOConfig
from envs.locomotion.half_cheetah import HalfCheetahVel
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahVel(),
    agent=MAMLTRPOConfig(action_scale=2.0, inner_objective="likelihood_ratio", max_kl=0.05),
    train=TrainConfig(num_iterations=200, num_tasks=20, eval_every=20, eval_tasks=40, checkpoint_every=10),
    expected=Expected(at_least=-80, source="Finn et al. 2017 reach -79 on rllab's cheetah, up to 2 m/s", point=1),
)
