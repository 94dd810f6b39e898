"""RMA on walker2d_rand_params, with unknown masses, inertias, damping and friction.

The student infers the teacher's latent from its last 50 steps, without rewards. The result has not been measured.
"""

from agents.teacher_student import RMA_ROBOT
from envs.locomotion.walkers import Walker2dRandParams
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Walker2dRandParams(),
    agent=RMA_ROBOT,
    train=TrainConfig(num_iterations=300, num_tasks=32, eval_every=25),
)
