"""VariBAD on half_cheetah_dir (forward or backward), for twenty million steps.

Zintgraf et al. (2020), figure 5, which has curves only. PPO and the VAE begin with the step sizes of
half_cheetah_vel/varibad and end with smaller ones; a batch has 64 tasks in place of 16 processes.
"""

from dataclasses import replace

from agents.varibad import VARIBAD_FEW_STEPS
from envs.locomotion.half_cheetah import HalfCheetahDir
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahDir(),
    agent=replace(VARIBAD_FEW_STEPS, num_minibatches=8, final_learning_rate=3e-4, final_vae_learning_rate=3e-4),
    train=TrainConfig(num_iterations=782, num_tasks=64, eval_every=0),
    expected=Expected(at_least=1100, source="our own aim; `rl2_long` has 1212 in its second episode then", point=2),
)
