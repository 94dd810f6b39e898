"""RMA on half_cheetah_rand_params, with unknown masses, damping and friction.

The student infers the teacher's latent from its last 50 steps, without rewards. The result has not been measured.
"""

from agents.teacher_student import RMA_ROBOT
from envs.locomotion.half_cheetah import HalfCheetahRandParams
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahRandParams(),
    agent=RMA_ROBOT,
    train=TrainConfig(num_iterations=150, num_tasks=32, eval_every=25),
)
