"""RL2 finds out from its rewards at which velocity its half cheetah should run, v* ~ U[0, 3].

Published results for RL2 on this family exist as figures only; what is expected is that the second episode, when the
velocity is known, is better than the first.
"""

from agents.rl2 import RL2Config
from envs.locomotion.half_cheetah import HalfCheetahVel
from experiments.experiment import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahVel(),
    agent=RL2Config(
        hidden_size=64,
        gamma=0.97,
        lam=0.9,
        learning_rate=1e-3,
        final_learning_rate=2e-4,
        num_minibatches=8,
        entropy_coefficient=0.0,
    ),
    train=TrainConfig(num_iterations=200, num_tasks=256, eval_every=50),
    expected=Expected(at_least=-60, source="our own aim; a random policy is far below -200", episode=2),
)
