"""RL2 on Meta-World's ML1-reach for two cores: trials of two episodes in training, two million steps.

The reward tells where the goal is within the first episode, so trials have two; ten, as published (`rl2_paper`), leave
only 40 updates in as many steps. Stopped half-way it had not learnt to look for the goal yet (experiments/LOG.md). An
evaluation may go on for longer: metarl evaluate RUN --episodes 13. For another environment: --family.benchmark
ML1-push-v3.
"""

from dataclasses import replace

from agents.rl2 import RL2_TWO_CORES
from envs.external.metaworld.family import Metaworld
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Metaworld("ML1-reach-v3"),
    agent=replace(RL2_TWO_CORES, num_minibatches=4),
    train=TrainConfig(
        num_iterations=100, num_tasks=20, num_points=2, eval_every=50, eval_tasks=50, checkpoint_every=10
    ),
    expected=Expected(at_least=4500, source="our own aim; a scripted policy that sees the goal has 4830", point=2),
)
