"""RL2 on half_cheetah_dir for 1e8 environment steps, where the published curve ends at 2104 (after roughly 60 hours).

Zintgraf et al. 2020 (VariBAD), appendix: return of an episode of 200 steps, after meta-training.
"""

from dataclasses import replace

from experiments import Expected
from experiments.recipes.half_cheetah_dir import rl2

experiment = replace(
    rl2.experiment,
    train=replace(rl2.experiment.train, num_iterations=1954, eval_every=100),
    expected=Expected(at_least=2104, source="Zintgraf et al. 2020, appendix", point=2),
)
