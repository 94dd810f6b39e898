"""PEARL infers from its exploration where in the plane its point should go.

Rakelly et al. (2019) have a dense point robot in their code, with goals in a larger square and episodes of 20 steps;
the family is the MAML paper's, and the settings are those of semicircle/pearl with the reward for all to see.
"""

from dataclasses import replace

from envs.torch_families.navigation import PointNavigation
from experiments import Expected, Experiment
from experiments.recipes.semicircle import pearl
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=PointNavigation(),
    agent=replace(
        pearl.experiment.agent,
        initial_episodes=4,
        prior_episodes=2,
        posterior_episodes=4,
        num_exploration_episodes=1,
        shaped_reward=None,
    ),
    train=TrainConfig(num_iterations=30, num_tasks=10, copies=2, eval_every=5, eval_tasks=100),
    expected=Expected(at_least=-40, episode=4, source="our own aim; who knows the goal has about -0.5"),
)
