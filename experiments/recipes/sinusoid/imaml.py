"""iMAML on sinusoid regression, 10 shots: implicit meta-gradients, without backpropagation through the inner steps.

Short inner steps and clipped meta-gradients keep the initialisation where inner steps are stable (experiments/LOG.md).
"""

from experiments import Expected, Experiment
from metarl.fewshot.methods.imaml import IMAMLConfig
from metarl.fewshot.regression import Sinusoid
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Sinusoid(),
    agent=IMAMLConfig(max_move=0.05, max_grad_norm=1.0, num_cg_steps=2, strength_damping=0.0),
    train=TrainConfig(num_iterations=3500, num_tasks=25, eval_every=500, eval_tasks=600, checkpoint_every=500),
    expected=Expected(at_most=0.35, point=10, source="our own aim; its paper has no sinusoid"),
)
