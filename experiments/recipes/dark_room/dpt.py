"""DPT in the dark room: it finds goals that no training task had, by what it has read in context.

Lee et al. (2023), section 5: 10 x 10 cells, 100 steps, 80 training goals and 20 test goals; a transformer of width 32,
contexts of 100 transitions. Two layers and one head are enough here, at a third of the time. With the exact posterior
and fresh noise at each step, the fourth episode would have .7 of the return of an agent that knows the goal; with noise
held for five or six steps it would have .99. Half of the contexts are parts of the agent's own trials.
"""

from agents.dpt import DPTConfig
from envs.torch_families.dark_room import DarkRoom
from experiments import Expected, Experiment
from metarl.adaptation.transformer import TransformerConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=DarkRoom(),
    agent=DPTConfig(
        memory=TransformerConfig(num_layers=2, num_heads=1, positions="none"), own=0.5, hold=6, learning_rate=3e-3
    ),
    train=TrainConfig(num_iterations=3000, num_tasks=64, eval_every=1500, eval_tasks=100),
    expected=Expected(at_least=73.6, point=4, source="our aim, .8 of the 91.99 of an agent that knows the goal"),
)
