"""RL2 tells from a few rewards whether its half cheetah should run forward or backward.

The published curve (Zintgraf et al. 2020, VariBAD's appendix) ends at 2104 after 1e8 steps and roughly 60 hours; for
the whole of it: --train.num-iterations 977. A short discount and short traces learn fastest here: which way to run
shows within the first steps, so that no credit needs to cross the trial.
"""

from agents.rl2 import RL2Config
from envs.locomotion.half_cheetah import HalfCheetahDir
from experiments.experiment import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahDir(),
    agent=RL2Config(
        hidden_size=64,
        gamma=0.97,
        lam=0.9,
        learning_rate=1e-3,
        final_learning_rate=2e-4,
        num_minibatches=8,
        entropy_coefficient=0.0,
    ),
    train=TrainConfig(num_iterations=400, num_tasks=256, eval_every=50),
    expected=Expected(at_least=1200, source="our own aim for one hour of two cores", episode=2),
)
