"""VariBAD on half_cheetah_vel, target velocities uniform in [0, 3], for two million steps.

The policy and the VAE take larger steps than in the paper's code, and the VAE takes more of them. The published result
(Zintgraf et al. 2020) is a curve.
"""

from agents.varibad import VARIBAD_FEW_STEPS
from envs.locomotion.half_cheetah import HalfCheetahVel
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahVel(),
    agent=VARIBAD_FEW_STEPS,
    train=TrainConfig(num_iterations=150, num_tasks=32, eval_every=0),
    expected=Expected(at_least=-60, source="our own aim, that of half_cheetah_vel/rl2", point=2),
)
