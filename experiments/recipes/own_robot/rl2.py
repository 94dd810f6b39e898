"""RL2 on a custom robot: a crane carries a load of unknown mass to a hidden target.

The reward decreases with the load's distance from the target. In the first episode the crane searches for it; in the
second, a good meta-learner goes there at once.
"""

from pathlib import Path

import torch

from agents.rl2 import RL2Config
from envs.locomotion.custom_robot import MujocoFamily
from envs.samplers import LogUniform, Uniform
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig


def observe(physics, task):  # all rows at once: [B, 5]
    swing = physics.position("swing")
    return torch.stack([physics.position("trolley"), swing.sin(), swing.cos(), *physics.qvel.T], dim=1)


def reward(physics, action, task):  # [B]
    load = physics.position("trolley") + 0.6 * physics.position("swing").sin()  # the rod is 0.6 m long
    return 1 - (load - task.target).abs() - 0.01 * action.square().sum(dim=1)


def terminated(physics, task):  # [B] bool
    return physics.position("swing").abs() > 1.2


def goal(task):  # position of a ball shown in videos: [B, 3]
    return torch.stack([task.target, torch.zeros_like(task.target), torch.full_like(task.target, 0.4)], dim=1)


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
    agent=RL2Config(hidden_size=64, gamma=0.97, entropy_coefficient=0.0),
    train=TrainConfig(num_iterations=100, num_tasks=128, eval_every=50),
    expected=Expected(at_least=50, source="our own aim; a crane without controls gets 30", point=2),
)
