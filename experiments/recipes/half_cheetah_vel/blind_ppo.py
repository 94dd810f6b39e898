"""PPO without a memory on half_cheetah_vel: one behaviour for all target velocities, the baseline of adaptation.

The settings of half_cheetah_vel/teacher_student's teacher, for as many steps as teacher and student together.
"""

from agents.rl2 import BLIND_PPO_FEW_STEPS
from envs.locomotion.half_cheetah import HalfCheetahVel
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahVel(),
    agent=BLIND_PPO_FEW_STEPS,
    train=TrainConfig(num_iterations=150, num_tasks=32, eval_every=25),
)
