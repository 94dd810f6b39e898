"""Siamese network on Omniglot, 5-way 1-shot.

Koch et al. (2015) classify twenty characters of one alphabet, after training on 150,000 distorted pairs; here an
episode has 2,000 pairs, with characters from all alphabets.
"""

from experiments import Expected, Experiment
from metarl.fewshot.images.omniglot import Omniglot
from metarl.fewshot.methods.siamese import SiameseConfig
from metarl.nets.conv import ConvConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Omniglot(ways=5, train_ways=20, shots=1, queries=5),
    agent=SiameseConfig(conv=ConvConfig(normalisation="running", precision="bfloat16")),
    train=TrainConfig(num_iterations=6000, num_tasks=2, eval_every=1000, eval_tasks=600, checkpoint_every=1000),
    expected=Expected(at_least=0.95, point=1, source="our own aim"),
)
