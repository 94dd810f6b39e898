"""RL2 on arm_reach: an arm reaches for a target with links of unknown masses, which bend its servos.

The critic also sees the joints and the masses, in training. The agent learns from the reward where its commands put the
tip, so its second episode is better than the first.
"""

from dataclasses import replace

from agents.rl2 import RL2_TWO_CORES
from envs.locomotion.arm import ArmReach
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=ArmReach(),
    agent=replace(RL2_TWO_CORES, critic_sees="privileged", gamma=0.95, init_std=0.2, num_epochs=8, target_kl=0.05),
    train=TrainConfig(num_iterations=350, num_tasks=64, eval_every=100),
    expected=Expected(at_least=38, source="our own aim; an arm that stays where it is gets -17", point=2),
)
