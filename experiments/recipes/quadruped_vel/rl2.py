"""RL2 on quadruped_vel: a walk at a commanded speed, under any load, on any floor.

The critic also sees the true velocity and the task, in training. The agent learns the task from how its legs move in
the first steps, so its first episode is already as good as the second.
"""

from dataclasses import replace

from agents.rl2 import RL2_FEW_STEPS
from envs.locomotion.quadruped import QuadrupedVel
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=QuadrupedVel(),
    agent=replace(RL2_FEW_STEPS, critic_sees="privileged", hidden_size=128, final_learning_rate=5e-4, num_epochs=8),
    train=TrainConfig(num_iterations=280, num_tasks=32, eval_every=70),
    expected=Expected(at_least=75, source="our own aim; a robot that stands still gets 17", point=2),
)
