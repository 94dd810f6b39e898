"""RL2 on ant_dynamics: an ant whose mass, damping, friction or legs differ, for as many steps as ant_dynamics/rma."""

from agents.rl2 import RL2_FEW_STEPS
from envs.locomotion.dynamics import AntDynamics
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=AntDynamics(),
    agent=RL2_FEW_STEPS,
    train=TrainConfig(num_iterations=300, num_tasks=32, eval_every=0),
)
