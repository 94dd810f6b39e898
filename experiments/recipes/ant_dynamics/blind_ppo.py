"""PPO without a memory on ant_dynamics: one behaviour for all ants, the baseline of adaptation.

The settings of ant_dynamics/rma's teacher, for as many steps as teacher and student together.
"""

from agents.rl2 import BLIND_PPO_FEW_STEPS
from envs.locomotion.dynamics import AntDynamics
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=AntDynamics(),
    agent=BLIND_PPO_FEW_STEPS,
    train=TrainConfig(num_iterations=300, num_tasks=32, eval_every=0),
)
