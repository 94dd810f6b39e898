"""MAML++ fits sinusoids from 10 points in five steps, with step sizes learned by layer and step.

Antoniou, Edwards, Storkey (2019), who have images only. First order and multi-step losses for a tenth of the budget.
"""

from dataclasses import replace

from experiments.experiment import Expected
from experiments.sinusoid import maml
from metarl.fewshot.learners import MAMLPlusPlusConfig

experiment = replace(
    maml.experiment,
    agent=MAMLPlusPlusConfig(outer_lr=3e-3, final_outer_lr=1e-4),
    expected=Expected(at_most=0.15, episode=10, source="our own aim: no worse than MAML"),
)
