"""ProMP on walker2d_rand_params, settings as published: smaller inner steps, and an adaptive penalty."""

from agents.promp import ProMPConfig
from envs.locomotion.walkers import Walker2dRandParams
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Walker2dRandParams(),
    agent=ProMPConfig(inner_lr=0.05, num_epochs=3, kl_penalty=1e-3, target_kl=1e-2),
    train=TrainConfig(num_iterations=1001, num_tasks=40, eval_every=50, eval_tasks=40, checkpoint_every=10),
    expected=Expected(at_least=200, source="our own aim", point=1),
)
