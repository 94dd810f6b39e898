"""First-order MAML on sinusoid regression, 10 shots.

Finn, Abbeel, Levine (2017); the settings are those of sinusoid/maml. The paper has no number for this case.
"""

from dataclasses import replace

from experiments import Expected
from experiments.recipes.sinusoid import maml
from metarl.fewshot.methods.maml import FOMAMLConfig

experiment = replace(
    maml.experiment,
    agent=FOMAMLConfig(outer_lr=3e-3, final_outer_lr=1e-4),
    expected=Expected(at_most=0.3, point=10, source="our own aim: near MAML's 0.11 to 0.15"),
)
