"""VariBAD on half_cheetah_dir (forward or backward), settings of the paper's code but for the number of tasks at once.

Zintgraf et al. (2020), figure 5, which has curves only. PPO has this repository's settings for RL2 on the same family,
and a batch of 64 tasks in place of 16 processes.
"""

from agents.varibad import VARIBAD_ROBOT
from envs.locomotion.half_cheetah import HalfCheetahDir
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahDir(),
    agent=VARIBAD_ROBOT,
    train=TrainConfig(num_iterations=800, num_tasks=64, eval_every=50),
)
