"""RL2 on half_cheetah_dir (forward or backward).

A small discount factor and lambda learn fastest here: the direction shows within the first steps, so credit need not
cross the trial. Small meta-batches, and hence more updates, save more than half of the steps (experiments/LOG.md).
`rl2_long` is this recipe for 1e8 steps, where the published curve ends.
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
