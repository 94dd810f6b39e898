"""FiLM on Omniglot, 5-way 1-shot.

Requeima et al. (2019) condition a large pre-trained net; here everything is learned together, in episodes of sixty
classes, with convolutions in half precision.
"""

from experiments import Expected, Experiment
from metarl.fewshot.images.omniglot import Omniglot
from metarl.fewshot.methods.film import FilmConfig
from metarl.nets.conv import ConvConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Omniglot(ways=5, train_ways=60, shots=1, queries=5),
    agent=FilmConfig(conv=ConvConfig(normalisation="running", precision="bfloat16")),
    train=TrainConfig(num_iterations=3000, num_tasks=1, eval_every=500, eval_tasks=600, checkpoint_every=500),
    expected=Expected(at_least=0.95, point=1, source="our own aim"),
)
