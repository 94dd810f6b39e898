"""VariBAD on GridNavi, the task on which its paper shows beliefs (Zintgraf et al. 2020, section 5.1).

4 episodes of 15 steps, the goal hidden and fixed within a trial. The decoder is the paper's: one probability per cell.
"""

from agents.varibad import VariBADConfig
from envs.torch_families.gridworld import GridNavi
from experiments import Experiment
from metarl.adaptation.recurrent import RecurrentConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=GridNavi(),
    agent=VariBADConfig(
        latent_size=16,
        memory=RecurrentConfig(span=60),
        encoder_sizes=(),
        reward_decoder="one_hot",
        reward_decoder_sizes=(32, 32),
        kl_weight=0.05,
        vae_learning_rate=4e-3,
        final_vae_learning_rate=4e-4,
        num_vae_steps=16,
        vae_batch=64,
        num_terms=8,
        buffer_trials=40_000,  # all of the training: early, random trials show the decoder where no goal is
        embedding_size=64,
        head_sizes=(128,),
        learning_rate=2e-3,
        final_learning_rate=2e-4,
        num_minibatches=8,
        gamma=0.95,
        lam=0.95,
        entropy_coefficient=0.02,
        final_entropy_coefficient=0.002,
    ),
    train=TrainConfig(num_iterations=300, num_tasks=128, eval_tasks=1000),
)
