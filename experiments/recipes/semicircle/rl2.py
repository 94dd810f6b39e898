"""RL2 on the sparse semicircle, for as many environment steps as semicircle/pearl."""

from agents.rl2 import RL2Config
from envs.torch_families.navigation import Semicircle
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Semicircle(),
    agent=RL2Config(hidden_size=64, gamma=0.97),
    train=TrainConfig(num_iterations=41, num_tasks=64, eval_every=10),
)
