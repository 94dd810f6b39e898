"""A crane of one's own learns to carry its load, of unknown mass, to a place it is not told.

The reward says how far the load is from that place. In the first episode the crane finds it; in the second a good
meta-learner goes there at once.
"""

from pathlib import Path

import torch

from agents.rl2 import RL2Config
from envs.mujoco_family import MujocoFamily
from envs.samplers import LogUniform, Uniform
from experiments.experiment import Experiment
from metarl.trainer import TrainConfig

ROD = 0.6  # metres


def observe(physics, task):
    swing = physics.position("swing")
    return torch.stack([physics.position("trolley"), swing.sin(), swing.cos(), *physics.qvel.T], dim=1)


def reward(physics, action, task):
    load = physics.position("trolley") + ROD * physics.position("swing").sin()
    return 1 - (load - task.target).abs() - 0.01 * action.square().sum(dim=1)


def terminated(physics, task):
    return physics.position("swing").abs() > 1.2


def goal(task):
    return torch.stack([task.target, torch.zeros_like(task.target), 0.6 * torch.ones_like(task.target)], dim=1)


experiment = Experiment(
    family=MujocoFamily(
        mjcf=Path(__file__).parent / "crane.xml",
        observe=observe,
        reward=reward,
        terminated=terminated,
        goal=goal,
        tasks={"target": Uniform(-1, 1), "body_mass": LogUniform(1 / 2, 2, bodies=["load"])},
        horizon=60,
        frame_skip=5,
    ),
    agent=RL2Config(hidden_size=64, gamma=0.97, num_minibatches=4, entropy_coefficient=0.0),
    train=TrainConfig(num_iterations=150, num_tasks=128, eval_every=50),
)
