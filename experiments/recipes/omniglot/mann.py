"""A memory-augmented neural network on Omniglot, 5-way, ten presentations per class, with late labels.

Santoro et al. (2016): five characters, ten times each, in images of 20 x 20; an LSTM of 200 units, 128 slots of 40
numbers, four heads, 100,000 tasks in batches of 16. Here there are fewer tasks, more queries, and a convolutional net
embeds the images; for pixels, as in the paper: --agent.embedding pixels --train.num-iterations 6250. After k shots
comes presentation k + 1.
"""

from experiments import Expected, Experiment
from metarl.fewshot.images.omniglot import Omniglot
from metarl.fewshot.methods.mann import MANNConfig
from metarl.nets.conv import ConvConfig
from metarl.trainer import TrainConfig

EMBEDDING = ConvConfig(filters=32, downsampling="stride", normalisation="running", precision="bfloat16")

experiment = Experiment(
    family=Omniglot(ways=5, shots=10, queries=4, test_queries=10, size=20),
    agent=MANNConfig(conv=EMBEDDING, outer_lr=2e-3, max_grad_norm=10.0),
    train=TrainConfig(num_iterations=5000, num_tasks=16, eval_every=1000, eval_tasks=600, checkpoint_every=1000),
    expected=Expected(at_least=0.9, point=4, source="Santoro et al. 2016 reach 0.949 on the fifth presentation"),
)
