"""RL2 finds out from its rewards whether its ant should run forward or backward.

The agent's settings are those of half_cheetah_dir/rl2. The budget is 31 million steps, about an hour and a half of two
cores. What it reaches was not measured, so nothing is expected; watch velocity_along, the speed in the task's
direction: a policy that merely stands returns up to 200 an episode.
"""

from dataclasses import replace

from envs.locomotion.ant import AntDir
from experiments.recipes.half_cheetah_dir import rl2
from metarl.trainer import TrainConfig

experiment = replace(
    rl2.experiment,
    family=AntDir(),
    train=TrainConfig(num_iterations=600, num_tasks=128, eval_every=50),
    expected=None,
)
