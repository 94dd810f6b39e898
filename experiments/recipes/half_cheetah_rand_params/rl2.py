"""RL2 on half_cheetah_rand_params, with unknown masses, damping and friction, for two million steps."""

from agents.rl2 import RL2_FEW_STEPS
from envs.locomotion.half_cheetah import HalfCheetahRandParams
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahRandParams(),
    agent=RL2_FEW_STEPS,
    train=TrainConfig(num_iterations=150, num_tasks=32, eval_every=0),
)
