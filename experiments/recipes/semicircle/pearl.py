"""PEARL looks for a goal on a semicircle that it cannot see, then goes there: it pays within 0.2 alone.

Rakelly et al. (2019), section 6.3, who have curves only: the encoder reads the sparse reward, the critics learn from
the dense one. Four episodes explore by draws from the prior, the fifth knows what they found. Rewards keep their own
scale, and the temperature is the published ratio's double; a fresh policy acts by z, so that the first episodes find
goals at all. The published budget is 1000 gradient steps an iteration on 16 x 256 transitions with contexts of 1024.
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
    expected=Expected(at_least=3.0, point=5, source="our own aim; who knows the goal has 13.3"),
)
