"""Matching network on Omniglot, 5-way 1-shot.

Vinyals et al. (2016) train with as many classes as at test; here an episode has sixty, as for prototypical networks,
which learns more in the same time, and convolutions are in half precision. Full context embeddings:
--agent.context-steps 3. A longer run: --train.num-iterations 20000.
"""

from experiments import Expected, Experiment
from metarl.fewshot.images.omniglot import Omniglot
from metarl.fewshot.methods.matching import MatchingConfig
from metarl.nets.conv import ConvConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Omniglot(ways=5, train_ways=60, shots=1, queries=5),
    agent=MatchingConfig(conv=ConvConfig(normalisation="running", precision="bfloat16")),
    train=TrainConfig(num_iterations=3000, num_tasks=1, eval_every=500, eval_tasks=600, checkpoint_every=500),
    expected=Expected(at_least=0.97, point=1, source="Vinyals et al. 2016 reach 0.981"),
)
