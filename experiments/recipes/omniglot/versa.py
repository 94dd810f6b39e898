"""VERSA on Omniglot, 5-way 1-shot.

Gordon et al. (2019) train with five classes, sixteen tasks at once, for 80,000 iterations; here there are fewer
iterations, with twenty classes per episode. For comparison, a plain softmax layer: --agent.num-points 0.
"""

from experiments import Expected, Experiment
from metarl.fewshot.images.omniglot import Omniglot
from metarl.fewshot.methods.versa import VersaConfig
from metarl.nets.conv import ConvConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Omniglot(ways=5, train_ways=20, shots=1, queries=5),
    agent=VersaConfig(conv=ConvConfig(normalisation="running", precision="bfloat16")),
    train=TrainConfig(num_iterations=4000, num_tasks=3, eval_every=500, eval_tasks=600, checkpoint_every=500),
    expected=Expected(at_least=0.95, point=1, source="our own aim"),
)
