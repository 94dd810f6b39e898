"""Meta-SGD tells five characters apart from one example of each, with a learned step size for each number in the net.

Li et al. (2017): the settings of omniglot/maml, and one step at meta-test too, as the step sizes are learned for it.
The paper draws them from 0.005 to 0.1; here all begin where MAML's are.
"""

from dataclasses import replace

from experiments import Expected
from experiments.recipes.omniglot import maml
from metarl.fewshot.methods.meta_sgd import MetaSGDConfig

experiment = replace(
    maml.experiment,
    agent=MetaSGDConfig(conv=maml.CONV, inner_lr=0.4, outer_lr=3e-3, final_outer_lr=1e-5, batching="vmap"),
    expected=Expected(at_least=0.965, point=1, source="within three points of 0.995 in Li et al. 2017"),
)
