"""VariBAD on random tabular MDPs, ten episodes per trial: rewards and transitions are both decoded.

The policy's settings are those of tabular_mdp/rl2 where VariBAD has them; the latent variable is wider than elsewhere
because a task has 50 rewards and 50 distributions of the next state.
"""

from agents.varibad import VariBADConfig
from envs.torch_families.tabular import TabularMDP
from experiments import Experiment
from metarl.adaptation.recurrent import RecurrentConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=TabularMDP(),
    agent=VariBADConfig(
        latent_size=32,
        memory=RecurrentConfig(span=100),
        hidden_size=128,
        state_decoder_sizes=(64, 32),
        head_sizes=(128,),
        activation="relu",
        normalise_obs=False,
        gamma=0.97,
        lam=0.6,
        num_minibatches=8,
        kl_weight=0.1,
        vae_learning_rate=3e-3,
        num_terms=20,
        num_decoded=50,
        max_grad_norm=1.0,
    ),
    train=TrainConfig(num_iterations=1000, num_tasks=512, eval_every=100, eval_tasks=1000),
)
