"""Off-policy RL2 on half_cheetah_vel, target velocities uniform in [0, 3], for one core and 500,000 steps.

Ni et al. (2022) train for 5 million steps, with a GRU of 128 units and 32 whole trials per gradient step. The velocity
shows in a few steps, so parts of 64 steps are enough; a gradient step per ten environment steps is what makes the most
of them.
"""

from agents.rl2_sac import RL2SACConfig
from envs.locomotion.half_cheetah import HalfCheetahVel
from experiments import Expected, Experiment
from metarl.adaptation.recurrent import RecurrentConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahVel(),
    agent=RL2SACConfig(
        memory=RecurrentConfig(span=100),
        hidden_size=64,
        num_gradient_steps=800,
        meta_batch=16,
        segment=64,
        burn_in=6,
        batch=32,
        buffer_trials=1250,
        gamma=0.95,
        tau=0.02,
        learning_rate=1e-3,
        max_grad_norm=10.0,
        temperature=0.05,
        center_reward=True,
    ),
    train=TrainConfig(num_iterations=63, num_tasks=20, eval_every=9, eval_tasks=30, checkpoint_every=5),
    expected=Expected(at_least=-65, source="our own aim: what PEARL here has after 508,000 steps", point=2),
)
