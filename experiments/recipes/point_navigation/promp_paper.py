"""ProMP on point navigation, with the settings of the paper's robots."""

from agents.promp import ProMPConfig
from envs.torch_families.navigation import PointNavigation
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=PointNavigation(),
    agent=ProMPConfig(),
    train=TrainConfig(num_iterations=1001, num_tasks=40, eval_every=50, eval_tasks=40, checkpoint_every=10),
    expected=Expected(at_least=-14, source="our own aim; Finn et al. 2017 reach -11.7 with MAML", point=1),
)
