"""VariBAD on half_cheetah_dir (forward or backward), for twenty million steps.

Zintgraf et al. (2020), figure 5, which has curves only. The steps of PPO and of the VAE are those of
half_cheetah_vel/varibad, larger than in the paper's code, with a batch of 64 tasks in place of 16 processes.
"""

from dataclasses import replace

from envs.locomotion.half_cheetah import HalfCheetahDir
from experiments import Expected, Experiment
from experiments.recipes.half_cheetah_vel.varibad import experiment as of_velocity
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahDir(),
    agent=replace(of_velocity.agent, num_minibatches=8, final_learning_rate=3e-4, final_vae_learning_rate=3e-4),
    train=TrainConfig(num_iterations=782, num_tasks=64, eval_every=0),
    expected=Expected(at_least=1100, source="our own aim; `half_cheetah_dir/rl2_long` has 1212 there", point=2),
)
