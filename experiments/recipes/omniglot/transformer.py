"""A transformer without positions on Omniglot, 5-way 1-shot."""

from experiments import Expected, Experiment
from metarl.fewshot.images.omniglot import Omniglot
from metarl.fewshot.methods.transformer import TransformerLearnerConfig
from metarl.nets.conv import ConvConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Omniglot(ways=5, shots=1, queries=1),
    agent=TransformerLearnerConfig(conv=ConvConfig(normalisation="running", precision="bfloat16"), max_grad_norm=1.0),
    train=TrainConfig(num_iterations=8000, num_tasks=16, eval_every=1000, eval_tasks=600, checkpoint_every=1000),
    expected=Expected(at_least=0.95, point=1, source="our aim; SNAIL reaches 0.991 (Mishra et al. 2018)"),
)
