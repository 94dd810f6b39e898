"""DPT in the dark room: it finds goals that no training task had, by what it has read in context.

Lee et al. (2023), section 5: 10 x 10 cells, 100 steps, 80 training goals and 20 test goals.
"""

from agents.dpt import DPTConfig
from envs.torch_families.dark_room import DarkRoom
from experiments import Experiment
from metarl.adaptation.transformer import TransformerConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=DarkRoom(),
    agent=DPTConfig(
        memory=TransformerConfig(num_layers=3, positions="none"),
        head_sizes=(128, 128),
        context=200,
        learning_rate=2e-3,
    ),
    train=TrainConfig(num_iterations=1600, num_tasks=64, eval_every=800, eval_tasks=100),
)
