"""Relation network on Omniglot, 5-way 1-shot.

Sung et al. (2018) train for a million episodes of five classes with 19 queries each; here there are fewer episodes, of
twenty classes, with convolutions in half precision. The paper's settings:
--family.train-ways 5 --family.queries 19 --train.num-iterations 1000000 --agent.max-grad-norm 0.5
"""

from experiments import Expected, Experiment
from metarl.fewshot.images.omniglot import Omniglot
from metarl.fewshot.methods.relation import RelationConfig
from metarl.nets.conv import ConvConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Omniglot(ways=5, train_ways=20, shots=1, queries=5),
    agent=RelationConfig(
        conv=ConvConfig(normalisation="running", output="maps", num_downsampled=2, precision="bfloat16"),
        max_grad_norm=0.5,
    ),
    train=TrainConfig(num_iterations=10000, num_tasks=1, eval_every=2000, eval_tasks=600, checkpoint_every=1000),
    expected=Expected(at_least=0.97, point=1, source="Sung et al. 2018 reach 0.996"),
)
