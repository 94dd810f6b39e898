"""MAML with a trust region, after twenty pulls of five arms, pulls the better ones.

The curve shows the mean of one pull before an inner step and after it. The best arm pays .83 on average; whoever knows
twenty random pulls and must choose one arm for good has .764. One step has to lead from no preference to a clear one:
steps are long, and how long is learned for each weight, without which meta-training adds nothing. `maml_trpo_paper` has
the settings of a public code.
"""

from agents.maml import MAMLTRPOConfig
from envs.torch_families.bandits import BernoulliBandit
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=BernoulliBandit(),
    agent=MAMLTRPOConfig(
        hidden_sizes=(32, 32),
        activation="relu",
        inner_lr=10.0,
        learned_step_sizes=True,
        inner_objective="likelihood_ratio",
        max_kl=0.02,
        curvature_stride=1,
    ),
    train=TrainConfig(num_iterations=100, num_tasks=100, num_points=2, eval_every=20, eval_tasks=1000),
    expected=Expected(at_least=0.74, source="our own aim; .764 is the most that a choice for good is worth", point=1),
)
