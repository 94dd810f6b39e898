"""RL3 on random tabular MDPs: RL2 that also reads action values and visit counts of a tabular learner.

Bhatia et al. (2023). All other settings are those of tabular_mdp/rl2.
"""

from dataclasses import replace

from agents.inner_learner import InnerLearnerConfig
from experiments import Experiment
from experiments.recipes.tabular_mdp import rl2

experiment = Experiment(
    family=rl2.experiment.family,
    agent=replace(rl2.experiment.agent, inner=InnerLearnerConfig()),
    train=rl2.experiment.train,
    expected=rl2.experiment.expected,
)
