"""Algorithm distillation in a dark room, from histories of experts whose noise falls to zero.

Laskin et al. (2022) have 9 x 9 cells and episodes of 20 steps; Zisman et al. (2023) the annealed experts. Test goals
are cells in which no training goal lies. A history is as long as a trial: what imitates it learns at its pace.
"""

from agents.algorithm_distillation import ADConfig
from envs.torch_families.dark_room import DarkRoom
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=DarkRoom(size=9, horizon=20, num_episodes=20),
    agent=ADConfig(context=100, num_histories=2000, history_episodes=20),
    train=TrainConfig(num_iterations=3000, num_tasks=64, eval_every=1000, eval_tasks=200),
)
