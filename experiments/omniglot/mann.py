"""A memory-augmented network names characters that it meets again and again, their labels coming one step late.

Santoro et al. (2016): five characters, ten times each, in pictures of 20 x 20; an LSTM of 200 units, 128 slots of 40
numbers, four heads, 100,000 tasks in batches of 16. So is this, for as many tasks, but for the convolutions by which
characters are seen; the paper's network sees pixels: --agent.embedding pixels. After k shots comes presentation k + 1.
"""

from experiments.experiment import Expected, Experiment
from metarl.convnets import ConvConfig
from metarl.fewshot.images.omniglot import Omniglot
from metarl.fewshot.sequence_learners import MANNConfig
from metarl.trainer import TrainConfig

EMBEDDING = ConvConfig(filters=32, downsampling="stride", normalisation="running", precision="bfloat16")

experiment = Experiment(
    family=Omniglot(ways=5, shots=10, queries=1, test_queries=10, size=20),
    agent=MANNConfig(conv=EMBEDDING, max_grad_norm=10.0),
    train=TrainConfig(num_iterations=6000, num_tasks=16, eval_every=1000, eval_tasks=600, checkpoint_every=1000),
    expected=Expected(at_least=0.8, episode=10, source="clearly above 0.8 on later presentations, our aim"),
)
