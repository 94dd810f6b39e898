"""A hypernetwork that generates the last two layers, on Omniglot, 5-way 1-shot.

After Ha et al. (2017), who have no few-shot tasks. Episodes have twenty classes, three at a time, so each iteration
generates three layers.
"""

from experiments import Expected, Experiment
from metarl.fewshot.images.omniglot import Omniglot
from metarl.fewshot.methods.hypernetwork import HypernetworkConfig
from metarl.nets.conv import ConvConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Omniglot(ways=5, train_ways=20, shots=1, queries=5),
    agent=HypernetworkConfig(conv=ConvConfig(normalisation="running", precision="bfloat16")),
    train=TrainConfig(num_iterations=4000, num_tasks=3, eval_every=500, eval_tasks=600, checkpoint_every=500),
    expected=Expected(at_least=0.95, point=1, source="our own aim"),
)
