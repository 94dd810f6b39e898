"""DPT on a five-armed Bernoulli bandit, a hundred pulls: it explores like posterior sampling.

Lee et al. (2023), section 5, has arms with Gaussian rewards; these have the exact baselines of `metarl baselines`.
"""

from agents.dpt import DPTConfig
from envs.torch_families.bandits import BernoulliBandit
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=BernoulliBandit(num_arms=5, num_pulls=100),
    agent=DPTConfig(hidden_size=32, context=100),
    train=TrainConfig(num_iterations=2000, num_tasks=64, eval_every=500, eval_tasks=1000),
)
