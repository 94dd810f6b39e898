"""ProMP on walker2d_rand_params, with unknown masses, inertias, damping and friction.

`promp_paper` has the published settings.
"""

from agents.promp import ProMPConfig
from envs.locomotion.walkers import Walker2dRandParams
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Walker2dRandParams(),
    agent=ProMPConfig(inner_lr=0.05, action_scale=2.0, num_rollouts=10, num_epochs=3, outer_lr=3e-3),
    train=TrainConfig(num_iterations=200, num_tasks=20, eval_every=20, eval_tasks=40, checkpoint_every=10),
    expected=Expected(at_least=200, source="our own aim", point=1),
)
