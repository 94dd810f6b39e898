"""VariBAD on the sparse semicircle, for as many environment steps as semicircle/pearl.

The belief says where the goal is not, until it is found; nothing rewards looking for it.
"""

from agents.varibad import VariBADConfig
from envs.torch_families.navigation import Semicircle
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Semicircle(),
    agent=VariBADConfig(gamma=0.97, kl_weight=0.1, num_terms=20, num_decoded=40, vae_learning_rate=3e-3),
    train=TrainConfig(num_iterations=41, num_tasks=64, eval_every=10),
)
