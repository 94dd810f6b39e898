"""MAML with a trust region goes to a goal that it can only infer from its rewards.

Later inner steps are about a third as long as the first: the first has a whole square to cross, and from then on a
longer one overshoots (experiments/LOG.md). `maml_trpo_paper` has the published settings.
"""

from agents.maml import MAMLTRPOConfig
from envs.navigation import PointNavigation
from experiments.experiment import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=PointNavigation(),
    agent=MAMLTRPOConfig(inner_lr=0.2, later_inner_lr=0.07, action_scale=3.0),
    train=TrainConfig(num_iterations=200, num_tasks=20, eval_every=20, eval_tasks=40, checkpoint_every=20),
    expected=Expected(at_least=-4.5, source="Finn et al. 2017 reach -3.2", episode=3),
)
