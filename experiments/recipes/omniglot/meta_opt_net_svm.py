"""MetaOptNet with a support vector machine on Omniglot, 5-way 1-shot.

Lee et al. (2019) have no Omniglot; on photographs they train with five classes of fifteen shots, whatever the shots at
test, with a larger net; the closest settings: --family.train-ways 5 --family.train-shots 15 --agent.conv.filters 640.
Here an episode has twenty classes, which are harder to tell apart than five.
"""

from experiments import Expected, Experiment
from metarl.fewshot.images.omniglot import Omniglot
from metarl.fewshot.methods.meta_opt_net import MetaOptNetConfig
from metarl.nets.conv import ConvConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Omniglot(ways=5, train_ways=20, shots=1, queries=5),
    agent=MetaOptNetConfig(conv=ConvConfig(normalisation="running", precision="bfloat16"), head="svm"),
    train=TrainConfig(num_iterations=4000, num_tasks=3, eval_every=500, eval_tasks=600, checkpoint_every=500),
    expected=Expected(at_least=0.97, point=1, source="our own aim"),
)
