"""RL2 on a grid where nine of ten goals are near the start: samplers of training tasks find the others.

`--train.sampler roml` or `plr` draws far goals more often; by the family's own distribution, 384,000 steps are too
few to find all of them (experiments/LOG.md).
"""

from dataclasses import dataclass

import torch

from agents.rl2 import RL2Config
from envs.torch_families.gridworld import GridNavi, GridTasks
from experiments import Expected, Experiment
from metarl.protocols import Split
from metarl.trainer import TrainConfig

_NEAR, _FAR = 3, 6  # steps from the start: at most, and at least
_DRAWS = 60  # of a goal, of which the first that is near or far enough is kept


@dataclass(frozen=True)
class RareFarGoals(GridNavi):
    """Goals at most three steps from the start but for one in ten, which is at least six steps away."""

    far_share: float = 0.1  # probability of a far goal

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> GridTasks:
        if split == "ood":
            return super().sample(num_tasks, split, generator)
        goals = super().sample(_DRAWS * num_tasks, split, generator).goal.reshape(num_tasks, _DRAWS)
        distance = goals // self.size + goals % self.size
        is_far = torch.rand(num_tasks, 1, generator=generator, device=generator.device) < self.far_share
        fits = torch.where(is_far, distance >= _FAR, distance <= _NEAR)
        return GridTasks(goals.gather(1, fits.byte().argmax(1, keepdim=True))[:, 0])


experiment = Experiment(
    family=RareFarGoals(),
    agent=RL2Config(hidden_size=128, gamma=0.95, lam=0.95, learning_rate=2e-3, final_learning_rate=2e-4),
    train=TrainConfig(num_iterations=100, num_tasks=64, eval_every=0, eval_tasks=1000),
    expected=Expected(at_least=40, source="our own aim; near goals alone give 44, by the family's own distribution"),
)
