"""HyperX: exploration bonuses in meta-training, for sparse rewards.

Zintgraf et al. Exploration in approximate hyper-state space for meta reinforcement learning (2021).
Burda et al. Exploration by random network distillation (2019), for the novelty.

While an agent learns, each step's reward is raised by the novelty of the next observation together with the belief that
holds it, and by the decoder's error on the step under that belief. Each of the two is divided by the running standard
deviation of its own discounted sums; their weights fall linearly to zero at the last iteration. Acting, evaluations and
the logged returns know nothing of them.

Novelty is the squared error of a network that learns to predict the outputs of a fixed random one.

Deviations: 1. both networks read one vector, without an embedding per input. 2. observations are normalised where the
agent normalises them. 3. the predictor learns from more samples, in proportion to the larger batches here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarl.checks import at_least, not_negative, positive, rounds, widths
from metarl.nets.mlp import mlp
from metarl.nets.moments import Moments
from metarl.optim import gradient_step, load_adam
from metarl.parallel import Share, current, share_of_mean, sharing, total
from metarl.rl.losses import discounted_sum


@dataclass(frozen=True)
class NoBonus:
    """No bonus: the reward is the task's."""


@dataclass(frozen=True)
class HyperXConfig:
    """HyperX's bonuses."""

    novelty_weight: float = 1.0  # initial weight of the novelty of next observation and belief
    error_weight: float = 1.0  # initial weight of the decoder's error; without effect on an agent that has none
    # indices of the observed numbers that novelty looks at, beside the belief; empty: all of them
    novelty_observations: tuple[int, ...] = ()
    novelty_belief: bool = True  # whether novelty looks at the belief too
    novelty_sizes: tuple[int, ...] = (256, 256)  # hidden layers of the random and of the predicting network
    novelty_outputs: int = 128  # number of random outputs to predict
    novelty_scale: float = 10.0  # factor on the random network's weights
    novelty_learning_rate: float = 1e-4  # step size of the predictor's Adam
    num_novelty_steps: int = 4  # gradient steps of the predictor per iteration
    novelty_batch: int = 512  # number of steps per gradient step of the predictor
    max_bonus: float = 10.0  # largest bonus of a step, before its weight

    def __post_init__(self) -> None:
        not_negative(self, "novelty_weight", "error_weight")
        widths(self, "novelty_sizes", "novelty_outputs")
        positive(self, "novelty_scale", "novelty_learning_rate", "max_bonus")
        rounds(self, "num_novelty_steps")
        at_least(self, 1, "novelty_batch")


BONUSES: dict[str, Any] = {"none": NoBonus(), "hyperx": HyperXConfig()}  # by the names that the command line takes


class HyperX:
    """The bonuses' networks and scales.

    Raises:
        ValueError: when an observation has no such number as the novelty is to look at.
    """

    def __init__(
        self, config: HyperXConfig, *, obs_size: int, belief_size: int, gamma: float, generator: torch.Generator
    ) -> None:
        self.config, self.gamma = config, gamma
        places = list(config.novelty_observations) or list(range(obs_size))
        if not all(0 <= place < obs_size for place in places):
            raise ValueError(f"novelty_observations is {tuple(places)}; must be from 0 to {obs_size - 1}")
        if config.novelty_belief:
            places += range(obs_size, obs_size + belief_size)
        self.places = places  # of an observation with its belief, what novelty looks at
        sizes = (len(places), *config.novelty_sizes, config.novelty_outputs)
        self.random = mlp(sizes, activation="relu", output_gain=1.0, generator=generator).requires_grad_(False)
        for parameter in self.random.parameters():
            parameter.mul_(config.novelty_scale)
        self.predictor = mlp(sizes, activation="relu", output_gain=1.0, generator=generator)
        self.optimizer = torch.optim.Adam(self.predictor.parameters(), lr=config.novelty_learning_rate)
        empty = Moments.empty(device=generator.device)
        self.moments = {"novelty": empty, "error": empty}  # of discounted sums

    def bonus(
        self, reached: Tensor, error: Tensor | None, trial_start: Tensor, valid: Tensor, remaining: float
    ) -> tuple[Tensor, dict[str, float]]:
        """What to add to the rewards [T, B], and metrics.

        reached [T, B, O + belief]: next observations with the beliefs that hold them; error [T, B]: the decoder's on
        each step, None without a decoder; remaining: the fraction of their first weights that the bonuses still have.
        """
        raw = {"novelty": self.novelty(reached), "error": error}
        weights = {"novelty": self.config.novelty_weight, "error": self.config.error_weight}
        bonus, metrics = torch.zeros_like(raw["novelty"]), {}
        for name, values in raw.items():
            if values is None:
                continue
            values = torch.where(valid, values, 0.0)
            sums = discounted_sum(values, trial_start, self.gamma)[valid]
            self.moments[name] = self.moments[name].merge(Moments.of(sums).of_all())
            scaled = (values / self.moments[name].std.float()).clamp(max=self.config.max_bonus)
            weighted = weights[name] * remaining * scaled
            bonus += weighted
            metrics[f"bonus_{name}"] = float(total(weighted[valid].sum()) / total(valid.sum()))
        return bonus, metrics

    @torch.no_grad()
    def novelty(self, reached: Tensor) -> Tensor:
        """The predictor's mean squared error: [..., O + belief] -> [...]."""
        return self._errors(reached[..., self.places])

    def learn(self, reached: Tensor, valid: Tensor, generator: torch.Generator) -> None:
        """Gradient steps of the predictor on samples of the valid steps of all tasks, drawn with replacement.

        reached [T, B, O + belief] and valid [T, B] are of this process's tasks; the samples are shared too.
        """
        tasks = current() or Share(valid.shape[1])
        seen = tasks.gathered(reached[..., self.places], dim=1)[tasks.gathered(valid, dim=1)]
        with sharing(self.config.novelty_batch) as share:
            for _ in range(self.config.num_novelty_steps):
                index = torch.randint(len(seen), (share.num_tasks,), generator=generator, device=generator.device)
                gradient_step(self.optimizer, share_of_mean(self._errors(seen[share.own(index)]).mean()))

    def _errors(self, seen: Tensor) -> Tensor:
        return (self.predictor(seen) - self.random(seen)).square().mean(-1)

    def state_dict(self) -> dict[str, Any]:
        return {
            "random": self.random.state_dict(),
            "predictor": self.predictor.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "moments": {name: dict(vars(moments)) for name, moments in self.moments.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.random.load_state_dict(state["random"])
        self.predictor.load_state_dict(state["predictor"])
        load_adam(self.optimizer, state["optimizer"])
        device = self.moments["novelty"].mean.device
        self.moments = {name: Moments(**state["moments"][name]).to(device) for name in self.moments}
