"""RMA on half_cheetah_rand_params, with unknown masses, damping and friction.

The student infers the teacher's latent from its last 50 steps, without rewards; the task shows in how the body moves.
The teacher has the first 1.3 of 1.9 million steps.
"""

from agents.teacher_student import RMA_ROBOT
from envs.locomotion.half_cheetah import HalfCheetahRandParams
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahRandParams(),
    agent=RMA_ROBOT,
    train=TrainConfig(num_iterations=150, num_tasks=32, eval_every=25),
    expected=Expected(at_least=440, source="our own aim; its teacher reaches 488", point=2),
)
