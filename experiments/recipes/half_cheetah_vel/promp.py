"""ProMP on half_cheetah_vel, with ten episodes before adaptation.

Actions are five times as noisy as in the paper, because a body that hardly moves learns slowly; and a step has half as
many episodes, because more updates on less data save steps. `promp_paper` has the published settings.
"""

from agents.promp import ProMPConfig
from envs.locomotion.half_cheetah import HalfCheetahVel
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahVel(),
    agent=ProMPConfig(action_scale=2.0, num_rollouts=10, outer_lr=3e-3),
    train=TrainConfig(num_iterations=250, num_tasks=20, eval_every=20, eval_tasks=40, checkpoint_every=10),
    expected=Expected(at_least=-80, source="Finn et al. 2017 reach -79 on rllab's cheetah, up to 2 m/s", point=1),
)
