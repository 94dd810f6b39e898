"""MAML-TRPO on Meta-World's ML1-reach for two cores: five episodes before adaptation, two million steps.

Observations are normalised, as distances of centimetres decide here, and the policy starts with wide actions, as
half_cheetah_dir/maml_trpo explains. For another environment: --family.benchmark ML1-push-v3.
"""

from agents.maml import MAMLTRPOConfig
from envs.external.metaworld.family import Metaworld
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Metaworld("ML1-reach-v3"),
    agent=MAMLTRPOConfig(
        action_scale=2.0, num_rollouts=5, normalise_obs=True, inner_objective="likelihood_ratio", max_kl=0.05
    ),
    train=TrainConfig(num_iterations=40, num_tasks=10, num_points=2, eval_every=10, eval_tasks=50, checkpoint_every=5),
)
