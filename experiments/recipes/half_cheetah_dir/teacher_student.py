"""Teacher and student on half_cheetah_dir (forward or backward).

The student is a GRU that infers the teacher's latent, and reads the rewards. The result has not been measured.
"""

from agents.teacher_student import TEACHER_STUDENT_ROBOT
from envs.locomotion.half_cheetah import HalfCheetahDir
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahDir(),
    agent=TEACHER_STUDENT_ROBOT,
    train=TrainConfig(num_iterations=150, num_tasks=32, eval_every=25),
)
