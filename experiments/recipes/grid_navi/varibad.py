"""VariBAD on GridNavi, the task on which its paper shows beliefs (Zintgraf et al. 2020, section 5.1).

4 episodes of 15 steps, the goal hidden and fixed within a trial. The decoder is the paper's: one probability per cell.
"""

from agents.varibad import VariBADConfig
from envs.torch_families.gridworld import GridNavi
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=GridNavi(),
    agent=VariBADConfig(
        reward_decoder="one_hot",
        reward_decoder_sizes=(32, 32),
        normalise_obs=False,
        kl_weight=0.25,
        gamma=0.95,
        lam=0.95,
        num_vae_steps=8,
        vae_batch=64,
        buffer_trials=5000,
        num_terms=20,
    ),
    train=TrainConfig(num_iterations=600, num_tasks=128, eval_tasks=1000),
)
