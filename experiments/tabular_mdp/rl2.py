"""RL2 on random tabular MDPs, ten episodes a trial: it explores, remembers and exploits like a planner would.

Duan et al. (2016), table 2, n = 10: RL2 156.2, PSRL 138.1, the best of the others 150.2, random 100.1 (mean total
reward of 1000 trials). A wide step size and whole transitions in the memory's input make the difference here: without
them the return stays near 115 for the first five million steps.
"""

from agents.rl2 import RL2Config
from envs.tabular import TabularMDP
from experiments.experiment import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=TabularMDP(),
    agent=RL2Config(
        hidden_size=128,
        whole_transition=True,
        encoder_sizes=(128,),
        head_sizes=(128,),
        activation="relu",
        gamma=0.95,
        lam=0.6,
        learning_rate=3e-3,
        final_learning_rate=2e-4,
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
