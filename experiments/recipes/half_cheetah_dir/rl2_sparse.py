"""RL2 on half_cheetah_dir where the first two metres are without reward: a bonus for new places finds it.

Zintgraf et al. (2021), "HyperX", has five metres and 5e7 steps. The novelty looks at x alone, as its authors' does.
With `--agent.bonus none` the robot learns to lie still.
"""

from dataclasses import replace

from agents.hyperx import HyperXConfig
from agents.rl2 import RL2_FEW_STEPS
from envs.locomotion.half_cheetah import HalfCheetahDir
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahDir(sparse_distance=2.0),
    agent=replace(
        RL2_FEW_STEPS,
        init_std=0.5,
        num_minibatches=4,
        bonus=HyperXConfig(novelty_weight=10.0, novelty_observations=(17,), novelty_belief=False),
    ),
    train=TrainConfig(num_iterations=80, num_tasks=32, eval_every=0),
    expected=Expected(at_least=50, source="our own aim; without the bonus it has -0.2", point=2),
)
