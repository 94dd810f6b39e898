"""PEARL on point navigation.

Rakelly et al. (2019) have a dense point robot in their code, with goals in a larger square and episodes of 20 steps;
the family here is the MAML paper's, and the settings are those of semicircle/pearl, without a shaped reward.
"""

from agents.pearl import PEARLConfig
from envs.torch_families.navigation import PointNavigation
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=PointNavigation(),
    agent=PEARLConfig(
        latent_size=5,
        hidden_sizes=(64, 64),
        encoder_sizes=(64, 64),
        num_train_tasks=60,
        initial_episodes=4,
        prior_episodes=2,
        posterior_episodes=4,
        extra_episodes=0,
        num_exploration_episodes=1,
        capacity=20_000,
        num_gradient_steps=400,
        batch=32,
        context=128,
        gamma=0.9,
        reward_scale=1.0,
        temperature=0.02,
        learning_rate=1e-3,
        tau=0.02,
        shaped_reward=None,
        kl_weight=0.005,
        actor_gain=4.0,
    ),
    train=TrainConfig(num_iterations=30, num_tasks=10, copies=2, eval_every=5, eval_tasks=100),
    expected=Expected(at_least=-40, point=4, source="our own aim; with a known goal about -0.5"),
)
