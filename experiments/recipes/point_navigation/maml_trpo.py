"""MAML-TRPO on point navigation.

Later inner steps are a third as long as the first, which has to cross the whole square, and the policy's noise has a
lower bound: inner steps grow as it falls, and overshoot (experiments/LOG.md). `maml_trpo_paper` has the published
settings.
"""

from agents.maml import MAMLTRPOConfig
from envs.torch_families.navigation import PointNavigation
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=PointNavigation(),
    agent=MAMLTRPOConfig(inner_lr=0.2, later_inner_lr=0.06, min_std=0.9, action_scale=3.0),
    train=TrainConfig(num_iterations=100, num_tasks=20, eval_every=20, eval_tasks=40, checkpoint_every=20),
    expected=Expected(at_least=-4.5, source="Finn et al. 2017 reach -3.2", point=3),
)
