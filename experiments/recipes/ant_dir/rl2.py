"""RL2 on ant_dir (forward or backward).

The agent's settings are those of half_cheetah_dir/rl2. The budget is 31 million steps, about an hour and a half on two
cores. The result has not been measured, so there is no expected value; watch velocity_along, the speed in the task's
direction: a policy that merely stands returns up to 200 per episode.
"""

from agents.rl2 import RL2_TWO_CORES
from envs.locomotion.ant import AntDir
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=AntDir(),
    agent=RL2_TWO_CORES,
    train=TrainConfig(num_iterations=600, num_tasks=128, eval_every=50),
)
