"""RL2 tells from a few rewards whether its half cheetah should run forward or backward.

A short discount and short traces learn fastest here: which way to run shows within the first steps, so that no credit
needs to cross the trial. Small meta-batches, and so many updates, save more than half of the steps
(experiments/LOG.md). `rl2_long` is the same for 1e8 steps, where the published curve ends.
"""

from agents.rl2 import RL2_TWO_CORES
from envs.locomotion.half_cheetah import HalfCheetahDir
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahDir(),
    agent=RL2_TWO_CORES,
    train=TrainConfig(num_iterations=600, num_tasks=128, eval_every=50),
    expected=Expected(at_least=1200, source="our own aim for one hour of two cores", point=2),
)
