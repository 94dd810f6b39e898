"""Meta network on Omniglot, 5-way 1-shot.

Munkhdalai, Yu (2017), whose net has five blocks and fast weights in its last ones. With running statistics, a query is
not normalised by other queries. A longer run: --train.num-iterations 20000.
"""

from experiments import Expected, Experiment
from metarl.fewshot.images.omniglot import Omniglot
from metarl.fewshot.methods.meta_networks import MetaNetworkConfig
from metarl.nets.conv import ConvConfig
from metarl.trainer import TrainConfig

CONV = ConvConfig(normalisation="running", downsampling="stride", output="mean")

experiment = Experiment(
    family=Omniglot(ways=5, shots=1, queries=5),
    agent=MetaNetworkConfig(conv=CONV, hidden_size=32, outer_lr=3e-3),
    train=TrainConfig(num_iterations=8000, num_tasks=8, eval_every=1000, eval_tasks=600, checkpoint_every=500),
    expected=Expected(at_least=0.959, point=1, source="within three points of 0.989 in Munkhdalai and Yu 2017"),
)
