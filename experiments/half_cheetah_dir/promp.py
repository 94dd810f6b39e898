"""ProMP finds out from twenty episodes whether its half cheetah should run forward or backward.

`promp_paper` has the published settings.
"""

from agents.promp import ProMPConfig
from envs.locomotion.half_cheetah import HalfCheetahDir
from experiments.experiment import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahDir(),
    agent=ProMPConfig(),
    train=TrainConfig(num_iterations=200, num_tasks=20, eval_every=20, eval_tasks=40, checkpoint_every=10),
    expected=Expected(at_least=250, source="our own aim; Finn et al. 2017 reach 293 on rllab's cheetah", episode=1),
)
