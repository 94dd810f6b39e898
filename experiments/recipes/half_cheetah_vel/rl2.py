"""RL2 on half_cheetah_vel, target velocities uniform in [0, 3].

The agent's settings are those of half_cheetah_dir/rl2. Published results for RL2 on this family exist as figures only;
the second episode, when the velocity is known, should be better than the first.
"""

from agents.rl2 import RL2_TWO_CORES
from envs.locomotion.half_cheetah import HalfCheetahVel
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahVel(),
    agent=RL2_TWO_CORES,
    train=TrainConfig(num_iterations=400, num_tasks=128, eval_every=50),
    expected=Expected(at_least=-60, source="our own aim; a random policy is far below -200", point=2),
)
