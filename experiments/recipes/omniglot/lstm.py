"""An LSTM on Omniglot, 5-way, ten presentations per class.

Hochreiter, Younger, Conwell (2001). Images and sizes are those of mann.py; labels come with their images, not one step
late as for the baseline of Santoro et al. (2016): --agent.late-labels true. After k shots comes presentation k + 1.
"""

from experiments import Expected, Experiment
from experiments.recipes.omniglot import mann
from metarl.adaptation.recurrent import RecurrentConfig
from metarl.fewshot.methods.lstm import LSTMConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=mann.experiment.family,
    agent=LSTMConfig(
        conv=mann.EMBEDDING,
        recurrent=RecurrentConfig("lstm", span=50),
        late_labels=False,
        outer_lr=2e-3,
        max_grad_norm=10.0,
    ),
    train=TrainConfig(num_iterations=6000, num_tasks=16, eval_every=2000, eval_tasks=600, checkpoint_every=1000),
    expected=Expected(at_least=0.8, point=10, source="our own aim: clearly above 0.8 on later presentations"),
)
