"""Algorithm distillation on a five-armed Bernoulli bandit, a hundred pulls, from experts whose noise falls to zero."""

from agents.algorithm_distillation import ADConfig
from envs.torch_families.bandits import BernoulliBandit
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=BernoulliBandit(num_arms=5, num_pulls=100),
    agent=ADConfig(hidden_size=32, context=100, num_histories=5000, history_episodes=300),
    train=TrainConfig(num_iterations=2000, num_tasks=64, eval_every=500, eval_tasks=1000),
)
