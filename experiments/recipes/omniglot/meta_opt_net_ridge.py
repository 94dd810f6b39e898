"""MetaOptNet with ridge regression on Omniglot, 5-way 1-shot.

Bertinetto et al. (2019) and Lee et al. (2019); the latter use an L2 penalty of 50 for an embedding of size 16,000:
--agent.ridge 50. Here the embedding has size 64, and an episode has sixty classes.
"""

from experiments import Expected, Experiment
from metarl.fewshot.images.omniglot import Omniglot
from metarl.fewshot.methods.meta_opt_net import MetaOptNetConfig
from metarl.nets.conv import ConvConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Omniglot(ways=5, train_ways=60, shots=1, queries=5),
    agent=MetaOptNetConfig(conv=ConvConfig(normalisation="running", precision="bfloat16"), head="ridge"),
    train=TrainConfig(num_iterations=3000, num_tasks=1, eval_every=500, eval_tasks=600, checkpoint_every=500),
    expected=Expected(at_least=0.97, point=1, source="our own aim"),
)
