"""MAML++ on sinusoid regression, 10 shots, with five inner steps.

Meta-gradients are clipped: without that, one seed in two ends at .2 to 1.
"""

from experiments import Expected, Experiment
from metarl.fewshot.methods.maml_plus_plus import MAMLPlusPlusConfig
from metarl.fewshot.regression import Sinusoid
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Sinusoid(),
    agent=MAMLPlusPlusConfig(outer_lr=3e-3, max_grad_norm=1.0),
    train=TrainConfig(num_iterations=4000, num_tasks=25, eval_every=500, eval_tasks=600, checkpoint_every=500),
    expected=Expected(at_most=0.16, point=5, source="MAML's after five steps, in a re-run of its paper"),
)
