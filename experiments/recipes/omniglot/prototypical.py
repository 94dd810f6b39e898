"""Prototypical network on Omniglot, 5-way 1-shot.

Snell, Swersky, Zemel (2017) train with sixty classes in an episode; so does this recipe, for 3000 episodes, with
convolutions in half precision. A longer run: --train.num-iterations 20000.
"""

from experiments import Expected, Experiment
from metarl.fewshot.images.omniglot import Omniglot
from metarl.fewshot.methods.prototypical import PrototypicalConfig
from metarl.nets.conv import ConvConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Omniglot(ways=5, train_ways=60, shots=1, queries=5),
    agent=PrototypicalConfig(conv=ConvConfig(normalisation="running", precision="bfloat16")),
    train=TrainConfig(num_iterations=3000, num_tasks=1, eval_every=500, eval_tasks=600, checkpoint_every=500),
    expected=Expected(at_least=0.975, point=1, source="Snell et al. 2017 reach 0.988"),
)
