"""VariBAD on half_cheetah_vel, target velocities uniform in [0, 3].

The settings of half_cheetah_dir/varibad; the published result (Zintgraf et al. 2020) is a curve.
"""

from agents.varibad import VARIBAD_ROBOT
from envs.locomotion.half_cheetah import HalfCheetahVel
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahVel(),
    agent=VARIBAD_ROBOT,
    train=TrainConfig(num_iterations=800, num_tasks=64, eval_every=50),
)
