"""ANIL on Omniglot, 5-way 1-shot.

Raghu et al. (2020): the settings of omniglot/maml, with five steps on the last layer, which take almost no time.
"""

from dataclasses import replace

from experiments import Expected
from experiments.recipes.omniglot import maml
from metarl.fewshot.methods.anil import ANILConfig

experiment = replace(
    maml.experiment,
    agent=ANILConfig(
        conv=maml.CONV, inner_lr=0.4, num_inner_steps=5, outer_lr=3e-3, final_outer_lr=1e-5, batching="vmap"
    ),
    train=replace(maml.experiment.train, num_iterations=20000, num_points=5),
    expected=Expected(at_least=0.95, point=5, source="our own aim: near MAML's; its paper has 20-way scores only"),
)
