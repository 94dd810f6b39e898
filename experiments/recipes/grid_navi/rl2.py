"""RL2 on GridNavi, a 5x5 gridworld: close to Bayes-optimal in under two minutes.

The task is VariBAD's (Zintgraf et al. 2020): 4 episodes of 15 steps, the goal hidden and fixed within a trial.
"""

from agents.rl2 import RL2Config
from envs.torch_families.gridworld import GridNavi
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=GridNavi(),
    agent=RL2Config(hidden_size=128, gamma=0.95, lam=0.95, learning_rate=2e-3, final_learning_rate=2e-4),
    train=TrainConfig(num_iterations=100, num_tasks=256, eval_tasks=1000),
    expected=Expected(at_least=33.5, source="90 % of the Bayes-optimal 37.214, an exact value"),
)
