"""RL2 on Meta-World's ML1-reach for two cores: trials of two episodes in training, two million steps.

A goal of reach is found within the first episode, by the reward alone, so two episodes teach both to search and to
remember; ten in a trial, as published (`rl2_paper`), leave only 40 updates in as many steps. An evaluation may go on
for longer: metarl evaluate RUN --episodes 13. For another environment: --family.benchmark ML1-push-v3.
"""

from dataclasses import replace

from agents.rl2 import RL2_TWO_CORES
from envs.external.metaworld.family import Metaworld
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Metaworld("ML1-reach-v3"),
    agent=replace(RL2_TWO_CORES, num_minibatches=4),
    train=TrainConfig(
        num_iterations=100, num_tasks=20, num_points=2, eval_every=50, eval_tasks=50, checkpoint_every=10
    ),
)
