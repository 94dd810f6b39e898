"""T-net on Omniglot, 5-way 1-shot.

Lee, Choi (2018): the settings of omniglot/maml, for 40,000 iterations. The MT-net, which learns which units adapt:
--agent.gated True.
"""

from dataclasses import replace

from experiments import Expected
from experiments.recipes.omniglot import maml
from metarl.fewshot.methods.t_net import TNetConfig

experiment = replace(
    maml.experiment,
    agent=TNetConfig(conv=maml.CONV, inner_lr=0.4, outer_lr=3e-3, final_outer_lr=1e-5),
    expected=Expected(at_least=0.96, point=3, source="our own aim: MAML's"),
)
