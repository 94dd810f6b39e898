"""Teacher and student on half_cheetah_vel, target velocities uniform in [0, 3].

The student is a GRU that infers the teacher's latent. It reads the rewards: nothing else shows the target velocity.
The teacher has the first 1.3 of 1.9 million steps.
"""

from agents.teacher_student import TEACHER_STUDENT_ROBOT
from envs.locomotion.half_cheetah import HalfCheetahVel
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahVel(),
    agent=TEACHER_STUDENT_ROBOT,
    train=TrainConfig(num_iterations=150, num_tasks=32, eval_every=25),
    expected=Expected(at_least=-75, source="our own aim; its teacher reaches -61", point=2),
)
