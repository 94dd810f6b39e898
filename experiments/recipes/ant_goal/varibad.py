"""VariBAD on ant_goal, with the latent size and the number of VAE steps of the paper's code.

Zintgraf et al. (2020). All else is as in `agents.varibad.VARIBAD_ROBOT`.
"""

from dataclasses import replace

from agents.varibad import VARIBAD_ROBOT
from envs.locomotion.ant import AntGoal
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=AntGoal(),
    agent=replace(VARIBAD_ROBOT, latent_size=10, num_vae_steps=10),
    train=TrainConfig(num_iterations=800, num_tasks=64, eval_every=50),
)
