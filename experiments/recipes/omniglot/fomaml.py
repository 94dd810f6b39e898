"""First-order MAML on Omniglot, 5-way 1-shot, with a choice of normalisation.

Finn, Abbeel, Levine (2017) have no result for Omniglot; Nichol et al. (2018) do. The settings are those of
omniglot/maml. Bronskill et al. (2020) compare normalisations with it: --agent.conv.normalisation tasknorm, running,
layer, instance or none; the default is "transductive", as published.
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
