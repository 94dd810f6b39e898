"""Reptile on sinusoid regression, with 50 points per task in mini-batches of 10.

Nichol, Achiam, Schulman (2018): inner rate 0.02, 64-64 tanh, one task per update for 30,000 updates, with outer step
0.1; here 5 tasks per update and a larger outer step. At meta-test the paper takes 32 steps: --train.num-points 32.
"""

from experiments import Expected, Experiment
from metarl.fewshot.methods.reptile import ReptileConfig
from metarl.fewshot.regression import Sinusoid
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Sinusoid(queries=40),
    agent=ReptileConfig(hidden_sizes=(64, 64), activation="tanh", outer_lr=0.5),
    train=TrainConfig(num_iterations=10000, num_tasks=5, eval_every=1000, eval_tasks=600, checkpoint_every=1000),
    expected=Expected(at_most=0.6, point=10, source="our own aim: the paper has a figure only, after 32 steps"),
)
