"""RL2 on half_cheetah_vel for two million steps: large updates and little noise, where `rl2` takes twenty million."""

from agents.rl2 import RL2_FEW_STEPS
from envs.locomotion.half_cheetah import HalfCheetahVel
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahVel(),
    agent=RL2_FEW_STEPS,
    train=TrainConfig(num_iterations=150, num_tasks=32, eval_every=50),
    expected=Expected(at_least=-60, source="our own aim, that of half_cheetah_vel/rl2", point=2),
)
