"""First-order MAML tells five characters apart from one example of each; its normalisation is to be chosen.

Finn, Abbeel, Levine (2017) leave it out for Omniglot; Nichol et al. (2018) report it. The settings are those of
omniglot/maml. Bronskill et al. (2020) compare normalisations with it: --agent.conv.normalisation tasknorm, running,
layer, instance or none; the first is "transductive", as published.
"""

from dataclasses import replace

from experiments import Expected
from experiments.recipes.omniglot import maml
from metarl.fewshot.methods.maml import FOMAMLConfig

experiment = replace(
    maml.experiment,
    agent=FOMAMLConfig(conv=maml.CONV, inner_lr=0.4, outer_lr=3e-3, final_outer_lr=1e-5, batching="vmap"),
    expected=Expected(at_least=0.953, point=3, source="within three points of 0.983 in Nichol et al. 2018"),
)
