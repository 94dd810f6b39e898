"""The Laplace approximation of the last layer, on Omniglot, 5-way 1-shot.

For comparison, a plain softmax layer with MAP weights: --agent.num-points 0.
"""

from experiments import Expected, Experiment
from metarl.fewshot.images.omniglot import Omniglot
from metarl.fewshot.methods.laplace import LaplaceConfig
from metarl.nets.conv import ConvConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Omniglot(ways=5, train_ways=20, shots=1, queries=5),
    agent=LaplaceConfig(conv=ConvConfig(normalisation="running", precision="bfloat16")),
    train=TrainConfig(num_iterations=4000, num_tasks=3, eval_every=500, eval_tasks=600, checkpoint_every=500),
    expected=Expected(at_least=0.95, point=1, source="our own aim"),
)
