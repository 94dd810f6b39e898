"""SNAIL on Omniglot, 5-way 1-shot.

Mishra et al. (2018): the sizes of its blocks, on four convolution blocks. The paper has batches of 32 tasks and a far
longer training: --train.num-tasks 32 --train.num-iterations 80000.
"""

from experiments import Expected, Experiment
from metarl.fewshot.images.omniglot import Omniglot
from metarl.fewshot.methods.snail import SnailLearnerConfig
from metarl.nets.conv import ConvConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Omniglot(ways=5, shots=1, queries=1),
    agent=SnailLearnerConfig(conv=ConvConfig(normalisation="running", precision="bfloat16"), max_grad_norm=1.0),
    train=TrainConfig(num_iterations=8000, num_tasks=16, eval_every=1000, eval_tasks=600, checkpoint_every=1000),
    expected=Expected(at_least=0.95, point=1, source="Mishra et al. 2018 reach 0.991"),
)
