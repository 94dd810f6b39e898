"""RL2 on a five-armed Bernoulli bandit, a hundred pulls.

Duan et al. (2016), table 1, n = 100, k = 5: RL2 78.7, Gittins 78.3, random 49.9 (mean total reward of 1000 trials).
"""

from dataclasses import replace

from envs.torch_families.bandits import BernoulliBandit
from experiments import Expected
from experiments.recipes.bernoulli_bandit import rl2
from metarl.trainer import TrainConfig

experiment = replace(
    rl2.experiment,
    family=BernoulliBandit(num_arms=5, num_pulls=100),
    train=TrainConfig(num_iterations=700, num_tasks=500, eval_every=100, eval_tasks=1000),
    expected=Expected(at_least=77.0, source="Duan et al. 2016, table 1: 78.7, standard error .5"),
)
