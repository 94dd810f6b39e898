"""RL2 on Gymnasium's Pendulum with unknown mass and gravity: an external environment as a family."""

from agents.rl2 import RL2Config
from envs.external.gymnasium_family import GymnasiumFamily
from envs.samplers import LogUniform, Uniform
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=GymnasiumFamily("Pendulum-v1", tasks={"g": Uniform(5, 15), "m": LogUniform(2 / 3, 3 / 2)}),
    agent=RL2Config(hidden_size=64, gamma=0.97, lam=0.9, num_minibatches=8, entropy_coefficient=0.0),
    train=TrainConfig(num_iterations=80, num_tasks=64, eval_every=40),
    expected=Expected(at_least=-220, source="our own aim; random torques get -1240", point=2),
)
