"""RL2 on random tabular MDPs, ten episodes per trial.

Duan et al. (2016), table 2, n = 10: RL2 156.2, PSRL 138.1, the best other method 150.2, random 100.1 (mean total reward
of 1000 trials). A memory that spans a whole trial before training, whole transitions as inputs and a large learning
rate each speed up learning here (experiments/LOG.md).
"""

from agents.rl2 import RL2Config
from envs.torch_families.tabular import TabularMDP
from experiments import Expected, Experiment
from metarl.adaptation.recurrent import RecurrentConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=TabularMDP(),
    agent=RL2Config(
        hidden_size=128,
        memory=RecurrentConfig(span=100),
        whole_transition=True,
        encoder_sizes=(128,),
        head_sizes=(128,),
        activation="relu",
        gamma=0.97,
        lam=0.6,
        learning_rate=2e-3,
        final_learning_rate=1e-4,
        num_epochs=4,
        num_minibatches=8,
        entropy_coefficient=0.02,
        final_entropy_coefficient=0.0,
        max_grad_norm=1.0,
        normalise_obs=False,
    ),
    train=TrainConfig(num_iterations=1000, num_tasks=512, eval_every=100, eval_tasks=1000),
    expected=Expected(at_least=150, source="Duan et al. 2016, table 2: 156.2, standard error .7"),
)
