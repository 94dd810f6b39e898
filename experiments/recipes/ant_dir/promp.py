"""ProMP on ant_dir (forward or backward), with ten episodes before adaptation.

`promp_paper` has the published settings.
"""

from agents.promp import ProMPConfig
from envs.locomotion.ant import AntDir
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=AntDir(),
    agent=ProMPConfig(action_scale=2.0, num_rollouts=10, outer_lr=3e-3),
    train=TrainConfig(num_iterations=200, num_tasks=20, eval_every=20, eval_tasks=40, checkpoint_every=10),
    expected=Expected(at_least=200, source="our own aim", point=1),
)
