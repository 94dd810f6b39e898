"""RL2 on arm_reach: an arm reaches for a target with links of unknown masses, which bend its servos.

The critic also sees the joints and the masses, in training. The agent learns from the reward where its commands put the
tip, so its second episode is better than the first.
"""

from agents.rl2 import RL2Config
from envs.locomotion.arm import ArmReach
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=ArmReach(),
    agent=RL2Config(
        critic_sees="privileged",
        hidden_size=64,
        gamma=0.95,
        lam=0.9,
        init_std=0.2,
        learning_rate=1e-3,
        final_learning_rate=2e-4,
        num_epochs=8,
        num_minibatches=8,
        entropy_coefficient=0.0,
        target_kl=0.05,
    ),
    train=TrainConfig(num_iterations=350, num_tasks=64, eval_every=100),
    expected=Expected(at_least=38, source="our own aim; an arm that stays where it is gets -17", point=2),
)
