"""ProMP on point navigation.

`promp_paper` has the settings of the paper's runs, which were on robots.
"""

from agents.promp import ProMPConfig
from envs.torch_families.navigation import PointNavigation
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=PointNavigation(),
    agent=ProMPConfig(inner_lr=0.2, later_inner_lr=0.06, min_std=0.9, action_scale=3.0, outer_lr=3e-3),
    train=TrainConfig(num_iterations=100, num_tasks=20, eval_every=20, eval_tasks=40, checkpoint_every=20),
    expected=Expected(at_least=-14, source="our own aim; Finn et al. 2017 reach -11.7 with MAML", point=1),
)
