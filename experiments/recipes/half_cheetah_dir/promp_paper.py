"""ProMP on half_cheetah_dir, settings as published."""

from agents.promp import ProMPConfig
from envs.locomotion.half_cheetah import HalfCheetahDir
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahDir(),
    agent=ProMPConfig(),
    train=TrainConfig(num_iterations=1001, num_tasks=40, eval_every=50, eval_tasks=40, checkpoint_every=10),
    expected=Expected(at_least=250, source="our own aim; Finn et al. 2017 reach 293 on rllab's cheetah", point=1),
)
