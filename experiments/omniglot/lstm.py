"""An LSTM, the memory of RL2, names characters that it meets again and again, their labels coming one step late.

The baseline of Santoro et al. (2016), and their protocol: see mann.py. After k shots comes presentation k + 1.
"""

from experiments.experiment import Expected, Experiment
from experiments.omniglot import mann
from metarl.fewshot.sequence_learners import LSTMConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=mann.experiment.family,
    agent=LSTMConfig(conv=mann.EMBEDDING, max_grad_norm=10.0),
    train=TrainConfig(num_iterations=15000, num_tasks=16, eval_every=2500, eval_tasks=600, checkpoint_every=2500),
    expected=Expected(at_least=0.8, episode=10, source="clearly above 0.8 on later presentations, our aim"),
)
