"""PEARL on half_cheetah_vel, settings as published, for a GPU: 2000 gradient steps of 16 x 256 per iteration.

Rakelly et al. (2019). Its result has not been measured here; the public code had -59 after 300,000 steps, and -39 after
500,000. The replay's capacity is lower than the published million per task, which is never filled.
"""

from agents.pearl import PEARLConfig
from envs.locomotion.half_cheetah import HalfCheetahVel
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahVel(),
    agent=PEARLConfig(),
    train=TrainConfig(num_iterations=60, num_tasks=5, num_points=3, eval_every=5, eval_tasks=30, checkpoint_every=5),
    expected=Expected(at_least=-45, point=3, source="our own aim by 500,000 steps; the public code reaches -39 there"),
)
