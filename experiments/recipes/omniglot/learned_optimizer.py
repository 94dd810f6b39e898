"""A learned optimizer on Omniglot, 5-way 1-shot, with five updates.

Andrychowicz et al. (2016), who use it for one problem after another: two layers of twenty units, here with a learned
initialisation, fifteen queries per class, and a net of 16 filters, because each of its parameter entries has its own
LSTM. All queries of a task are normalised together.
"""

from dataclasses import replace

from experiments import Expected
from experiments.recipes.omniglot import maml
from metarl.fewshot.methods.learned_optimizer import LearnedOptimizerConfig
from metarl.nets.conv import STRIDED

experiment = replace(
    maml.experiment,
    family=replace(maml.experiment.family, queries=15, test_queries=15),
    agent=LearnedOptimizerConfig(
        conv=replace(STRIDED, filters=16), outer_lr=3e-3, final_outer_lr=1e-5, max_grad_norm=1.0
    ),
    train=replace(maml.experiment.train, num_iterations=4000, num_tasks=4, num_points=5, eval_every=2000),
    expected=Expected(at_least=0.9, point=5, source="our own aim; its paper has no few-shot learning"),
)
