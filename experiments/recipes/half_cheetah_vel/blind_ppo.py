"""PPO without a memory on half_cheetah_vel: one behaviour for all target velocities, the baseline of adaptation.

The settings of half_cheetah_vel/teacher_student's teacher, for as many steps as teacher and student together.
"""

from agents.rl2 import RL2Config
from envs.locomotion.half_cheetah import HalfCheetahVel
from experiments import Experiment
from metarl.adaptation.no_memory import NoMemoryConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahVel(),
    agent=RL2Config(
        memory=NoMemoryConfig(),
        head_sizes=(64, 64),
        init_std=0.4,
        gamma=0.97,
        learning_rate=3e-3,
        final_learning_rate=1e-3,
        num_epochs=8,
        num_minibatches=16,
        entropy_coefficient=0.0,
        target_kl=0.05,
    ),
    train=TrainConfig(num_iterations=150, num_tasks=32, eval_every=25),
)
