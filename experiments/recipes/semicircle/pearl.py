"""PEARL on the sparse semicircle: the reward is nonzero only within 0.2 of the goal.

Rakelly et al. (2019), section 6.3, which has curves only: the encoder reads the sparse reward, and the critics learn
from the dense one. Four episodes explore with latents from the prior, and the fifth uses what they found. Rewards keep
their scale, and the temperature is twice the published ratio; an untrained policy depends on z, so the first episodes
find some goals. The published budget is 1000 gradient steps per iteration on 16 x 256 transitions with contexts of
1024.
"""

from agents.pearl import PEARLConfig
from envs.torch_families.navigation import Semicircle
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Semicircle(),
    agent=PEARLConfig(
        latent_size=5,
        hidden_sizes=(64, 64),
        encoder_sizes=(64, 64),
        num_train_tasks=60,
        initial_episodes=20,
        prior_episodes=10,
        posterior_episodes=10,
        extra_episodes=0,
        num_exploration_episodes=4,
        capacity=20_000,
        num_gradient_steps=400,
        batch=32,
        context=128,
        gamma=0.9,
        reward_scale=1.0,
        temperature=0.02,
        learning_rate=1e-3,
        tau=0.02,
        shaped_reward="dense_reward",
        kl_weight=0.005,
        actor_gain=4.0,
    ),
    train=TrainConfig(num_iterations=60, num_tasks=10, copies=5, eval_every=10, eval_tasks=100),
    expected=Expected(at_least=3.0, point=5, source="our own aim; with a known goal 13.3"),
)
