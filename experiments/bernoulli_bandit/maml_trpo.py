"""MAML with a trust region, after twenty pulls of five arms, pulls the better ones.

The curve shows the mean of one pull before an inner step and after it. The best arm pays .83 on average. Steps are
long, as one of them must lead from no preference to a clear one. `maml_trpo_paper` has the settings of a public code.
"""

from agents.maml import MAMLTRPOConfig
from envs.bandits import BernoulliBandit
from experiments.experiment import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=BernoulliBandit(),
    agent=MAMLTRPOConfig(hidden_sizes=(32, 32), activation="relu", num_rollouts=20, inner_lr=10.0, curvature_stride=1),
    train=TrainConfig(num_iterations=200, num_tasks=100, num_episodes=2, eval_every=20, eval_tasks=1000),
    expected=Expected(at_least=0.68, source="our own aim", episode=1),
)
