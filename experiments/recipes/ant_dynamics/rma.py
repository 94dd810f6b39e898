"""RMA on ant_dynamics: an ant whose mass, damping, friction or legs differ.

The student infers the teacher's latent from its last 50 steps, without rewards. After a quarter of
these steps it is as good as its teacher, which is then still learning.
"""

from agents.teacher_student import RMA_ROBOT
from envs.locomotion.dynamics import AntDynamics
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=AntDynamics(),
    agent=RMA_ROBOT,
    train=TrainConfig(num_iterations=300, num_tasks=32, eval_every=25),
)
