"""PEARL on half_cheetah_rand_params, with unknown masses, damping and friction, for two cores.

The agent's settings are those of half_cheetah_vel/pearl. The curve has two episodes of exploration and one after them.
"""

from dataclasses import replace

from envs.locomotion.half_cheetah import HalfCheetahRandParams
from experiments.recipes.half_cheetah_vel import pearl

experiment = replace(
    pearl.experiment,
    family=HalfCheetahRandParams(),
    train=replace(pearl.experiment.train, eval_every=0),
    expected=None,
)
