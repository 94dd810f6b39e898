"""ProMP on ant_dir, settings as published."""

from agents.promp import ProMPConfig
from envs.locomotion.ant import AntDir
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=AntDir(),
    agent=ProMPConfig(),
    train=TrainConfig(num_iterations=1001, num_tasks=40, eval_every=50, eval_tasks=40, checkpoint_every=10),
    expected=Expected(at_least=200, source="our own aim", point=1),
)
