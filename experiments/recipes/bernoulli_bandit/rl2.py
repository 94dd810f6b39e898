"""RL2 on a five-armed Bernoulli bandit, ten pulls: on a par with the Gittins index within a minute.

Duan et al. (2016), table 1, n = 10, k = 5: RL2 6.7, Gittins 6.6, random 5.0 (mean total reward of 1000 trials).
"""

from agents.rl2 import RL2Config
from envs.torch_families.bandits import BernoulliBandit
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=BernoulliBandit(num_arms=5, num_pulls=10),
    agent=RL2Config(
        hidden_size=64,
        head_sizes=(),
        lam=0.9,
        learning_rate=2e-3,
        final_learning_rate=2e-4,
        final_entropy_coefficient=0.0,
        normalise_obs=False,
    ),
    train=TrainConfig(num_iterations=400, num_tasks=1000, eval_every=100, eval_tasks=1000),
    expected=Expected(at_least=6.55, source="Duan et al. 2016, table 1: 6.7, standard error .07"),
)
