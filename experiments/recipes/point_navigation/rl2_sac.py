"""Off-policy RL2 on point navigation: the small example of this agent."""

from agents.rl2_sac import RL2SACConfig
from envs.torch_families.navigation import PointNavigation
from experiments import Expected, Experiment
from metarl.adaptation.recurrent import RecurrentConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=PointNavigation(),
    agent=RL2SACConfig(
        memory=RecurrentConfig(span=100),
        hidden_size=64,
        head_sizes=(64, 64),
        num_gradient_steps=120,
        segment=64,
        burn_in=6,
        batch=32,
        gamma=0.95,
        tau=0.02,
        learning_rate=1e-3,
        temperature=0.02,
    ),
    train=TrainConfig(num_iterations=40, num_tasks=16, eval_every=10, eval_tasks=100),
    expected=Expected(at_least=-5, point=4, source="our own aim; Finn et al. 2017 reach -3.2 after gradient steps"),
)
