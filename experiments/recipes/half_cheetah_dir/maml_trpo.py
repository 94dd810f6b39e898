"""MAML-TRPO on half_cheetah_dir (forward or backward), with twenty episodes before adaptation.

Three differences from the published settings of `maml_trpo_paper` save steps: actions are five times as noisy, because
a body that hardly moves learns slowly; the inner objective is ProMP's likelihood ratio, whose derivative equals the
inner step's; and the trust region is five times as wide. With ten episodes per step instead of twenty, the inner
gradient is too noisy: 106 instead of 450 after 17.6 M steps.
"""

from agents.maml import MAMLTRPOConfig
from envs.locomotion.half_cheetah import HalfCheetahDir
from experiments import Expected, Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=HalfCheetahDir(),
    agent=MAMLTRPOConfig(action_scale=2.0, inner_objective="likelihood_ratio", max_kl=0.05),
    train=TrainConfig(num_iterations=200, num_tasks=20, eval_every=20, eval_tasks=40, checkpoint_every=10),
    expected=Expected(at_least=250, source="our own aim; Finn et al. 2017 reach 293 on rllab's cheetah", point=1),
)
