"""ANIL on sinusoid regression, 10 shots.

Raghu et al. (2020), which has images and reinforcement learning only.
"""

from dataclasses import replace

from experiments import Expected
from experiments.recipes.sinusoid import maml
from metarl.fewshot.methods.anil import ANILConfig

experiment = replace(
    maml.experiment,
    agent=ANILConfig(inner_lr=0.02, num_inner_steps=5, outer_lr=3e-3, final_outer_lr=1e-4),
    expected=Expected(at_most=0.3, point=10, source="our own aim: near MAML's 0.11 to 0.15"),
)
