"""MAML-TRPO on a five-armed Bernoulli bandit, settings of pytorch-maml-rl: ten pulls, inner step size 0.5."""

from agents.maml import MAMLTRPOConfig
from envs.torch_families.bandits import BernoulliBandit
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=BernoulliBandit(),
    agent=MAMLTRPOConfig(
        hidden_sizes=(32, 32),
        activation="relu",
        num_rollouts=10,
        inner_lr=0.5,
        gamma=0.95,
        curvature_stride=1,
    ),
    train=TrainConfig(num_iterations=500, num_tasks=20, num_points=2, eval_every=50, eval_tasks=1000),
    expected=Expected(at_least=0.52, source="our own aim", point=1),
)
