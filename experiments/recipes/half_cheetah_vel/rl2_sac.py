"""Off-policy RL2 on half_cheetah_vel, target velocities uniform in [0, 3], for one core and 500,000 steps.

Ni et al. (2022) train for 5 million steps, with a GRU of 128 units and 32 whole trials per gradient step.
"""

from agents.rl2_sac import RL2SACConfig
from envs.locomotion.half_cheetah import HalfCheetahVel
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahVel(),
    agent=RL2SACConfig(
        hidden_size=64,
        num_gradient_steps=130,
        meta_batch=16,
        batch=64,
        buffer_trials=1250,
        gamma=0.97,
        tau=0.01,
        learning_rate=1e-3,
        max_grad_norm=10.0,
    ),
    train=TrainConfig(num_iterations=125, num_tasks=10, eval_every=25, eval_tasks=30),
    expected=Expected(at_least=-65, source="PEARL here after 508,000 steps", point=2),
)
